"""What of an exploration needs attention, in whole sentences and by name, the gravest first."""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from mvtec_tf.data import masks, protocol
from mvtec_tf.data.formats import groups_file
from mvtec_tf.data.record import FORMAT_OF_SUFFIX, GOOD, IMAGE_SUFFIXES, Record
from mvtec_tf.data.words import counted
from mvtec_tf.exploration import duplicates
from mvtec_tf.exploration.duplicates import Pair
from mvtec_tf.exploration.images import DECODABLE_FORMATS, OK, Look
from mvtec_tf.exploration.survey import Exploration

# With so few images one of them is a tenth of every rate, and a test without a single error still
# leaves a true error rate of 26 % possible (see `highest_rate`).
FEWEST_PER_CLASS = 10
# Above this ROC-AUC the mean or the deviation of the grey values alone tells good from defective.
TELLING_AUC = 0.9
# A photograph whose grey values deviate by less than this (of 255) shows nothing.
_BLANK_CONTRAST = 1.0
# A camera's 12 bits in the low ones of 16 span 17 levels of 8 bits at most.
_FEW_LEVELS = 32
# Only a property of few values is compared by value; photographs cut by hand have all sizes.
_MOST_VALUES = 3


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that needs attention.

    Attributes:
      kind: short name, for programs.
      title: in a few words, with how many.
      text: why it matters and what to do.
      items: what it is about, by name.
    """

    kind: str
    title: str
    text: str
    items: tuple[str, ...]


def findings(found: Exploration) -> list[Finding]:
    """What needs attention, the gravest first; empty if nothing does."""
    kinds = [
        *_of_duplicates(found.duplicates),
        _groups_in_both(found.records),
        _one_object(found.records),
        _unreadable(found),
        *_of_masks(found),
        _suspects(found),
        *_of_files(found),
        _small_classes(found),
        _telling_brightness(found.looks),
        _other_light(found.looks),
        _telling_properties(found.looks),
    ]
    return [kind for kind in kinds if kind.items]


def counts(records: Iterable[Record]) -> Mapping[tuple[str, str, str], int]:
    """(category, split, defect) -> images; train before test, good before the defects."""
    found = collections.Counter((record.category, record.split, record.defect) for record in records)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1] != "train", item[0][2] != GOOD, item)))


def highest_rate(images: int) -> float:
    """The error rate that is still possible when none of so many images was called wrongly.

    The upper one-sided 95 % limit of Clopper and Pearson, "The use of confidence or fiducial
    limits", 1934: the rate at which no error among `images` has a chance of 5 %.
    """
    return 1.0 - 0.05 ** (1.0 / images)


def telling(good: Sequence[float], defective: Sequence[float]) -> float | None:
    """ROC-AUC of one number as a detector: the chance that it is higher for a defective image.

    Ties count half (Mann and Whitney, 1947). None if either side is empty.
    """
    if not len(good) or not len(defective):
        return None
    ordered = np.sort(np.asarray(good, np.float64))
    below = np.searchsorted(ordered, defective, side="left")
    up_to = np.searchsorted(ordered, defective, side="right")
    return float((below + up_to).mean() / (2.0 * len(ordered)))


def _of_duplicates(pairs: Sequence[Pair]) -> Iterator[Finding]:
    leaking = [pair for pair in pairs if pair.relation == duplicates.TRAIN_AND_TEST]
    undeclared = [pair for pair in pairs if pair.relation == duplicates.UNDECLARED]
    tests = len({pair.second.path for pair in leaking})
    yield Finding(
        "duplicates_train_and_test",
        f"{counted(tests, 'test image is', 'test images are')} in train too",
        "The same photograph lies in train and in test. Of exact copies a training leaves the one in test out; by a "
        "changed copy a model would be judged on what it has seen. Look at the pair; if it is one photograph, take one "
        "of the two files away.",
        _named(leaking),
    )
    yield Finding(
        "duplicates_across_groups",
        f"{counted(len(undeclared), 'pair')} of the same photograph within train or test",
        "They are not declared as one group, so that dividing the images for fitting and judging can tear them apart. "
        "Give both one name in groups.csv, or in the column group of a list, or keep one.",
        _named(undeclared),
    )
    contradicting = [pair for pair in pairs if pair.contradicts]
    yield Finding(
        "contradicting_labels",
        f"{counted(len(contradicting), 'pair')} of the same photograph with both labels",
        "Called good in one place and defective in the other. If both show one photograph, one of the labels is "
        "wrong; if one of them was cropped, the defect may lie outside.",
        _named(contradicting),
    )


def _named(pairs: Iterable[Pair]) -> tuple[str, ...]:
    return tuple(f"{pair.first.path} and {pair.second.path} ({pair.kind})" for pair in pairs)


def _groups_in_both(records: Iterable[Record]) -> Finding:
    splits: dict[str, set[str]] = collections.defaultdict(set)
    for record in records:
        splits[record.group].add(record.split)
    both = tuple(sorted(group for group, where in splits.items() if len(where) > 1))
    return Finding(
        "groups_in_train_and_test",
        f"{counted(len(both), 'group is', 'groups are')} both in train and in test",
        "By groups.csv, or the column group of a list, the same object is on both sides. Training refuses such a set.",
        both,
    )


def _one_object(records: Sequence[Record]) -> Finding:
    items = tuple(filter(None, map(groups_file.one_object, protocol.by_category(records).values())))
    return Finding(
        "one_object",
        f"all good images show one object in {counted(len(items), 'category', 'categories')}",
        "Images of one object count once and stay together, so nothing is left to test with.",
        items,
    )


def _unreadable(found: Exploration) -> Finding:
    items = tuple(f"{one.record.path}: {one.reason}" for one in found.unreadable)
    return Finding(
        "unreadable",
        f"{counted(len(items), 'image file')} cannot be read",
        "Training would stop at such a file. Replace or remove it.",
        items,
    )


def _of_masks(found: Exploration) -> Iterator[Finding]:
    texts = {
        masks.NO_MASK: ("no masks", "A mask is black, and white on the defect. Every way to read it is a guess."),
        masks.INVERTED: ("inverted", "Most of the image and of its border would be defect. Invert the mask."),
        masks.SHARED: ("claimed by several images", "On which of them it was drawn is not known."),
        masks.EMPTY: ("empty", "The image is called defective, but the mask marks nothing in it."),
        masks.FULL: ("full", "The mask marks the whole image, which says nothing about where the defect is."),
        masks.OTHER_SIZE: ("of another size than the image", "Where the defect lies is then a guess."),
        masks.CONTRADICTS: ("of good images", "The image is called good, so its mask should mark nothing."),
        masks.UNREADABLE: ("unreadable", "Nothing can be said about where the defect is."),
        masks.MISSING: ("missing", "Other defective images of the category have a mask."),
    }
    for state, (words, text) in texts.items():
        items = tuple(f"{mask.record.path}: {mask.reason}" for mask in found.masks if mask.state == state)
        title = f"{counted(len(items), 'mask is', 'masks are')} {words}"
        yield Finding(f"masks_{state.replace(' ', '_')}", title, text, items)
    yield Finding(
        "masks_without_image",
        f"{counted(len(found.orphan_masks), 'mask belongs', 'masks belong')} to no image",
        "A mask is found by its image's name, ground_truth/DEFECT/IMAGE_mask.png, or named by a CSV file.",
        tuple(f"{file}: {why}" for file, why in found.orphan_masks),
    )
    alike: dict[str, list[Record]] = collections.defaultdict(list)
    for mask in found.masks:
        if mask.state == OK:
            alike[mask.digest].append(mask.record)
    copied = [ones for ones in alike.values() if len({one.group for one in ones}) > 1]
    yield Finding(
        "masks_alike",
        f"{counted(len(copied), 'mask marks', 'masks mark')} the very same pixels on photographs of several objects",
        "Was it copied from another part? Look at them: a mark of one fixed shape, or a fault of a mould, "
        "can lie at one place, and then nothing is wrong.",
        tuple(" and ".join(one.path for one in ones) for ones in copied),
    )
    turned = {one.record.path for one in found.looks if one.turned_in_place}
    either = [mask for mask in found.masks if mask.state == OK and mask.record.path in turned]
    yield Finding(
        "masks_of_turned_images",
        f"{counted(len(either), 'image')} with a mask {'is' if len(either) == 1 else 'are'} turned in place by Exif",
        "The mask is taken to be drawn on the upright image. That has the same size as the stored one, so only a look "
        "tells whether this is so.",
        tuple(f"{mask.record.path}: {mask.width} x {mask.height}" for mask in either),
    )


def _suspects(found: Exploration) -> Finding:
    items = tuple(f"{one.record.path}: {one.why}, by {one.score:.1f}" for one in found.suspects or ())
    return Finding(
        "suspect_labels",
        f"{counted(len(items), 'label')} that other images speak against",
        "Look at these, worst first. Where a label is wrong, say so in the column label of suspects.csv; some are only "
        "hard to tell.",
        items,
    )


def _of_files(found: Exploration) -> Iterator[Finding]:
    undecodable = [one for one in found.looks if one.format not in DECODABLE_FORMATS]
    yield Finding(
        "undecodable",
        f"{counted(len(undecodable), 'image')} of a format that training cannot decode",
        f"It decodes {', '.join(DECODABLE_FORMATS)}, by content and not by name. Convert the file.",
        tuple(f"{one.record.path}: {one.format}, mode {one.mode}" for one in undecodable),
    )
    coarse = [one for one in found.looks if one.levels is not None and 1 < one.levels <= _FEW_LEVELS]
    yield Finding(
        "few_levels",
        f"{counted(len(coarse), 'image')} of 16 bits of which few grey levels are left",
        "Training and serving read v / 257, so that of values close together, as in the low bits, hardly anything "
        "remains, and a faint defect is lost. Spread them over the 16 bits first: a camera's 12 bits times 16.",
        tuple(f"{one.record.path}: {one.levels} of 256 grey levels, brightness {one.brightness:.0f}" for one in coarse),
    )
    blank = [one for one in found.looks if one.contrast < _BLANK_CONTRAST and one not in coarse]
    yield Finding(
        "blank",
        f"{counted(len(blank), 'image shows', 'images show')} nothing",
        "Nearly all of the image has one grey value.",
        tuple(f"{one.record.path}: standard deviation {one.contrast:.2f} of 255" for one in blank),
    )
    misnamed = [
        one
        for one in found.looks
        if one.format in DECODABLE_FORMATS
        and one.format != FORMAT_OF_SUFFIX[pathlib.Path(one.record.file).suffix.lower()]
    ]
    yield Finding(
        "misnamed",
        f"{counted(len(misnamed), 'image')} of another format than the name says",
        "Everything here reads a file by its content, so it does no harm; other programs may stumble.",
        tuple(f"{one.record.path}: {one.format}" for one in misnamed),
    )
    several = [one for one in found.looks if one.frames > 1]
    yield Finding(
        "several_pictures",
        f"{counted(len(several), 'file')} with more than one picture",
        "Only the first of its pictures is used.",
        tuple(f"{one.record.path}: {one.frames}" for one in several),
    )
    yield Finding(
        "ignored",
        f"{counted(len(found.ignored), 'image or archive', 'images or archives')} among the images not used",
        f"Images are {', '.join(IMAGE_SUFFIXES)}. If this is one, convert it, or add it to the CSV file that lists "
        "them; unpack an archive.",
        found.ignored,
    )


def _small_classes(found: Exploration) -> Finding:
    """Classes of the readable images: the others cannot be used."""
    sizes = collections.Counter((one.record.category, one.record.split, one.record.label) for one in found.looks)
    wanted = (("train", 0, "good training image"), ("test", 0, "good test image"), ("test", 1, "defective image"))
    small = [
        f"{category}: {counted(sizes[category, split, label], words)}"
        for category in sorted({record.category for record in found.records})
        for split, label, words in wanted
        if sizes[category, split, label] < FEWEST_PER_CLASS
    ]
    good_alone = any(not sizes[category, "test", 1] for category, _, _ in sizes)
    return Finding(
        "small_classes",
        f"{counted(len(small), 'class', 'classes')} with fewer than {FEWEST_PER_CLASS} readable images",
        "No rate can be stated of so few, and no model learned from them."
        + good_alone
        * " Good images alone make a model without labels (label budget 0), which says how unlike them a part is.",
        tuple(small),
    )


def _telling_brightness(looks: Iterable[Look]) -> Finding:
    items, where = _told_by_light(_tests(looks))
    return Finding(
        "telling_brightness",
        f"brightness or contrast alone tells good from defective in {where}",
        "A model can score well on these test images by the light and without seeing a defect. Were good and defective "
        "parts photographed alike?",
        items,
    )


def _other_light(looks: Iterable[Look]) -> Finding:
    goods = _sides(looks, lambda record: int(record.split == "test") if record.label == 0 else None)
    items, where = _told_by_light(goods)
    return Finding(
        "other_light",
        f"brightness or contrast alone tells good training images from good test images in {where}",
        "Another lamp, camera or lot of parts: then a threshold that rests on training images stops too many or too "
        "few good parts. Were both photographed alike?",
        items,
    )


def _told_by_light(sides: Mapping[str, tuple[list[Look], list[Look]]]) -> tuple[tuple[str, ...], str]:
    """What tells the two sides of a category apart, by name, and in how many categories."""
    items, categories = [], set()
    for category, both in sides.items():
        for name in ("brightness", "contrast"):
            auc = telling(*([getattr(one, name) for one in ones] for ones in both))
            if auc is not None and max(auc, 1.0 - auc) >= TELLING_AUC:
                categories.add(category)
                items.append(f"{category}: {name} alone, ROC-AUC {max(auc, 1.0 - auc):.3f}")
    return tuple(items), counted(len(categories), "category", "categories")


def _telling_properties(looks: Iterable[Look]) -> Finding:
    items = []
    for category, (good, defective) in _tests(looks).items():
        for name, read in (
            ("size", lambda one: f"{one.width} x {one.height}"),
            ("mode", lambda one: one.mode),
            ("format", lambda one: one.format),
        ):
            sides = [sorted({read(one) for one in ones}) for ones in (good, defective)]
            if all(0 < len(side) <= _MOST_VALUES for side in sides) and not set(sides[0]) & set(sides[1]):
                items.append(f"{category}: {name} of good {', '.join(sides[0])}; of defective {', '.join(sides[1])}")
    return Finding(
        "telling_storage",
        "good and defective test images are stored differently",
        "A model can learn the way of storing instead of the defect. Store all images alike.",
        tuple(items),
    )


def _tests(looks: Iterable[Look]) -> Mapping[str, tuple[list[Look], list[Look]]]:
    """category -> (good, defective) test images, where there are enough of both to compare."""
    return _sides(looks, lambda record: record.label if record.split == "test" else None)


def _sides(
    looks: Iterable[Look], side: Callable[[Record], int | None]
) -> Mapping[str, tuple[list[Look], list[Look]]]:
    """category -> images of side 0 and of side 1, where there are enough of both to compare."""
    found: dict[str, tuple[list[Look], list[Look]]] = collections.defaultdict(lambda: ([], []))
    for one in looks:
        if (where := side(one.record)) is not None:
            found[one.record.category][where].append(one)
    return {name: sides for name, sides in sorted(found.items()) if min(map(len, sides)) >= FEWEST_PER_CLASS}
