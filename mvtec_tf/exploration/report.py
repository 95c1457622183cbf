"""The page about a data set before any training: what is in it and what needs attention.

One HTML file without script, clock or link. It needs the images once more, for thumbnails, and
reads them one at a time.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from markupsafe import Markup

from mvtec_tf import files
from mvtec_tf.data.words import counted, percent
from mvtec_tf.evaluation.report import page, suspects
from mvtec_tf.evaluation.report.canvas import DEFECTIVE_COLOUR, GOOD_COLOUR
from mvtec_tf.evaluation.report.page import Cell, Column, Listing, Section, Table
from mvtec_tf.exploration import duplicates
from mvtec_tf.exploration import findings as explore_findings
from mvtec_tf.exploration import tables as exploration_tables
from mvtec_tf.exploration.duplicates import Pair
from mvtec_tf.exploration.findings import Finding
from mvtec_tf.exploration.images import OK, Look, MaskLook
from mvtec_tf.exploration.survey import Exploration
from mvtec_tf.exploration.thumbnails import Thumbnails

PAGE_FILE = "exploration.html"
SUMMARY_FILE = "summary.json"
# Of the page's 8 MB; the rest is for tables, which are cut below.
_THUMBNAIL_BUDGET = 6_000_000
_MOST_PAIRS_SHOWN = 24
_MOST_NAMED = 30
_MOST_IN_SIGHT = 5
_MOST_ROWS = 400
_MOST_THUMBNAILS = 500
_MOST_OF_A_CLASS = 6
_MOST_SIZES_NAMED = 3
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def write_exploration(out_dir: files.PathLike, found: Exploration, title: str) -> dict[str, Any]:
    """Writes the page, `summary.json` and the CSV tables; the page last: where it lies, the rest is whole.

    Args:
      out_dir: made if missing.
      found: of `explore`.
      title: heading of the page.

    Returns:
      The content of `summary.json`.
    """
    out_dir = pathlib.Path(out_dir)
    attention = explore_findings.findings(found)
    said = sentences(found, attention)
    document = exploration_tables.document(found, attention, said)
    exploration_tables.write_tables(out_dir, found)
    files.write_json(out_dir / SUMMARY_FILE, document)
    files.write_text(out_dir / PAGE_FILE, render(found, attention, said, title))
    return document


def sentences(found: Exploration, attention: Sequence[Finding]) -> list[str]:
    """How many images there are, and whether something needs attention."""
    categories = len({record.category for record in found.records})
    train = sum(record.split == "train" for record in found.records)
    defective = sum(record.label for record in found.records)
    total = (
        f"{counted(len(found.records), 'image')} in {counted(categories, 'category', 'categories')}: "
        f"{train:,} to train on, all called good, and {len(found.records) - train:,} to test on, "
        f"{defective:,} of them called defective."
    )
    if found.beside:
        total += f" {counted(found.beside, 'other file')} among them, no image by name or content, passed over."
    if not attention:
        return [
            total,
            "Nothing needs attention: all files can be read, no photograph was found twice, no mask is unusable and "
            f"every class has at least {explore_findings.FEWEST_PER_CLASS} images.",
        ]
    things = "; ".join(one.title for one in attention)
    return [total, f"{'This needs' if len(attention) == 1 else 'These need'} attention: {things}."]


def render(found: Exploration, attention: Sequence[Finding], said: Sequence[str], title: str) -> str:
    """The whole page as HTML, at most 8 MB."""
    thumbnails = Thumbnails(_THUMBNAIL_BUDGET)
    sections = [
        _attention(attention),
        _duplicates(found, thumbnails),
        None if found.suspects is None else suspects.section(found.suspects),
        _counts(found),
        _storage(found),
        _light(found),
        _areas(found),
        _sheets(found, thumbnails),
    ]
    return page.html(title, said, sections, "no_better" if attention else "")


@dataclasses.dataclass(frozen=True)
class _Sheet:
    """Thumbnails side by side, as HTML each."""

    images: Sequence[Markup]
    template: ClassVar[str] = "sheet.html"


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """Pairs of photographs.

    Attributes:
      pairs: of each its title, relation, whether it is grave, (name, thumbnail) of both images, and what else is said.
    """

    pairs: Sequence[Mapping[str, Any]]
    template: ClassVar[str] = "pairs.html"


def _attention(attention: Sequence[Finding]) -> Section | None:
    blocks = []
    for one in attention:
        rest = len(one.items) - _MOST_NAMED
        more = [f"... and {rest:,} more, in {SUMMARY_FILE}."] if rest > 0 else []
        hidden = f"Show {min(len(one.items), _MOST_NAMED):,} by name" if len(one.items) > _MOST_IN_SIGHT else ""
        listed = Listing([*one.items[:_MOST_NAMED], *more], "items", hidden)
        blocks.append(Section(one.title[0].upper() + one.title[1:], [one.text, listed]))
    return Section("What needs attention", blocks) if blocks else None


def _duplicates(found: Exploration, thumbnails: Thumbnails) -> Section:
    pairs = found.duplicates
    text = (
        "The same photograph twice: the same file, the same pixels, or a changed copy, that is one re-encoded (JPEG of "
        "quality 75 and up), resized (down to a half) or cropped (by up to a tenth of width and height). A changed "
        "copy is made again from its original and told by its noise, which no two photographs share. Photographs that "
        "only look alike are not listed, nor are several photographs of one part: give those one name in groups.csv "
        "or, in a list, in the column group. "
        "Copies that were mirrored, turned or made brighter are not found, and neither are changed copies of aligned "
        "parts without noise or texture of their own, or of pictures nearly of one grey: nothing tells them from "
        "others."
    )
    if not pairs:
        return Section("Duplicates", [text, "None were found."])
    number = f"{counted(len(pairs), 'pair')}, the gravest first."
    if len(pairs) > _MOST_PAIRS_SHOWN:
        number = f"The first {_MOST_PAIRS_SHOWN} of {number} All are in duplicates.csv."
    declared = sum(not pair.leaks for pair in pairs)
    if declared:
        number += f" {counted(declared, 'pair lies', 'pairs lie')} within one declared group: no harm."
    shown = _Pairs([_pair(pair, thumbnails) for pair in pairs[:_MOST_PAIRS_SHOWN]])
    return Section("Duplicates", [text, number, shown])


_RELATIONS: Mapping[str, str] = {
    duplicates.TRAIN_AND_TEST: "train and test: a leak",
    duplicates.UNDECLARED: "same split, not declared as one group",
    duplicates.DECLARED: "one declared group: kept together",
}


def _pair(pair: Pair, thumbnails: Thumbnails) -> dict[str, Any]:
    agree = ""
    if pair.kind == duplicates.CHANGED:
        agree = (
            f"Difference {pair.difference:.2f} of what re-encoding can make; correlation of the noise "
            f"{pair.noise_correlation:.2f}."
        )
    labels = " Good in one place, defective in the other." if pair.contradicts else ""
    return {
        "title": pair.kind[0].upper() + pair.kind[1:],
        "relation": _RELATIONS[pair.relation],
        "grave": pair.leaks,
        "images": [(one.path, thumbnails.html(one.file, one.path)) for one in (pair.first, pair.second)],
        "text": agree + labels,
    }


def _counts(found: Exploration) -> Section:
    readable = explore_findings.counts(one.record for one in found.looks)
    objects: dict[tuple[str, str, str], set[str]] = collections.defaultdict(set)
    for one in found.looks:
        record = one.record
        objects[record.category, record.split, record.defect].add(record.group)
    rows = []
    for names, images in explore_findings.counts(found.records).items():
        usable, shown = readable.get(names, 0), len(objects[names])
        rate = f"{100 * explore_findings.highest_rate(shown):.0f} %" if names[1] == "test" and shown else ""
        unreadable = f"{images - usable:,}" if images > usable else ""
        rows.append((*names, f"{images:,}", unreadable, f"{shown:,}" if shown < usable else "", rate))
    text = (
        "The last column: even if a model makes no error on these test images, its true error rate may be as high as "
        "that (upper 95 % limit). Images of one object, by groups.csv or the column group, count once. Only more "
        "objects help."
    )
    figures = ("Images", "Unreadable", "Objects, if fewer", "Error rate still possible")
    return Section("How many images", [text, *_table(("Category", "Split", "Class"), figures, rows)])


def _storage(found: Exploration) -> Section:
    rows = []
    for category, looks in _by_category(found.looks).items():
        size = f"{sum(one.file_bytes for one in looks) / 1e6:,.1f} MB"
        modes, formats = (_values(looks, name) for name in ("mode", "format"))
        rows.append((category, _sizes(looks), modes, formats, size))
    text = (
        "Mode is how pixels are stored: L grey, RGB colour, P palette, I;16 grey of 16 bit. Training sees all of them "
        "as RGB of 8 bit, upright as Exif says, without transparency. Sizes are those of the upright image."
    )
    table = _table(("Category",), ("Width x height", "Mode", "Format", "Files"), rows)
    return Section("How they are stored", [text, *table])


def _light(found: Exploration) -> Section:
    rows = []
    for category, looks in _by_category(found.looks).items():
        classes: dict[tuple[bool, int], list[Look]] = collections.defaultdict(list)
        for one in looks:
            classes[one.record.split == "test", one.record.label].append(one)
        for (test, label), ones in sorted(classes.items()):
            names = (category, "test" if test else "train", "defective" if label else "good")
            good = classes.get((test, 0), ()) if label else ()
            cells = [cell for name in ("brightness", "contrast") for cell in _light_cells(name, looks, ones, good)]
            rows.append((*names, f"{len(ones):,}", *cells))
    text = (
        "Brightness is the mean grey value of an image, contrast its standard deviation, both of 255. The bars of one "
        "category share a scale, from its lowest to its highest value: the thin line holds 90 % of the images, the "
        "thick one the middle half, the black mark is the median; the figures are the median and those 90 %. AUC says "
        "how well that one number tells defective from good: 0.5 is not at all, near 1 (higher) or 0 (lower) means "
        "that the light alone gives the label away."
    )
    figures = ("Images", "Brightness", "", "AUC", "Contrast", "", "AUC")
    return Section("Brightness and contrast", [text, *_table(("Category", "Split", "Class"), figures, rows)])


def _light_cells(name: str, category: Sequence[Look], ones: Sequence[Look], good: Sequence[Look]) -> list[str | Cell]:
    """Bar, figures and AUC of one class; no AUC without good images to compare with."""
    scale, values, reference = ([getattr(one, name) for one in some] for some in (category, ones, good))
    auc = explore_findings.telling(reference, values)
    low, _, middle, _, high = np.quantile(values, _QUANTILES)
    bar = _spread(values, (min(scale), max(scale)), ones[0].record.label)
    return [bar, Cell(f"{middle:.0f}", f"{low:.0f} to {high:.0f}"), "" if auc is None else f"{auc:.2f}"]


def _areas(found: Exploration) -> Section:
    if not found.masks:
        return Section("Defect area", ["No category has masks."])
    classes: dict[tuple[str, str], list[MaskLook]] = collections.defaultdict(list)
    for mask in found.masks:
        classes[mask.record.category, mask.record.defect].append(mask)
    usable = {
        names: [mask.area for mask in masks if mask.state == OK] for names, masks in classes.items()
    }
    lowest = min((min(areas) for areas in usable.values() if areas), default=1.0)
    rows = []
    for names, masks in sorted(classes.items()):
        states = collections.Counter(mask.state for mask in masks if mask.state != OK)
        wrong = ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
        rows.append((*names, f"{len(masks):,}", *_area_cells(usable[names], lowest), wrong))
    text = (
        "Share of the image that the mask covers. The bars are logarithmic, from the smallest defect of all "
        f"({percent(lowest)}) to the whole image."
    )
    figures = ("Images", "Area", "Smallest", "Median", "Largest", "Masks not usable")
    return Section("Defect area", [text, *_table(("Category", "Defect"), figures, rows)])


def _area_cells(areas: Sequence[float], lowest: float) -> list[str]:
    if not areas:
        return ["", "", "", ""]
    # Areas span orders of magnitude.
    bar = _spread(np.log10(areas), (float(np.log10(lowest)) - 0.05, 0.0), 1)
    return [bar, *(percent(value) for value in (min(areas), float(np.median(areas)), max(areas)))]


def _sheets(found: Exploration, thumbnails: Thumbnails) -> Section:
    classes: dict[tuple[str, str, str], list[Look]] = collections.defaultdict(list)
    for one in found.looks:
        classes[one.record.category, one.record.split, one.record.defect].append(one)
    masks = {mask.record.path: mask.record.mask for mask in found.masks if mask.state == OK}
    each = min(max(_MOST_THUMBNAILS // max(len(classes), 1), 1), _MOST_OF_A_CLASS)
    legend = " The line in magenta surrounds the mask." if masks else ""
    blocks: list[Any] = [f"Up to {counted(each, 'image')} of each class, evenly picked.{legend}"]
    categories: dict[str, list[Any]] = {}
    for category, split, defect in explore_findings.counts(one.record for one in found.looks):
        looks = classes[category, split, defect]
        places = np.linspace(0, len(looks) - 1, min(each, len(looks))).round().astype(int)
        records = [looks[place].record for place in places]
        images = [thumbnails.html(record.file, record.path, masks.get(record.path, "")) for record in records]
        if any(images):
            categories.setdefault(category, []).extend([f"{split}, {defect} ({len(looks):,})", _Sheet(images)])
    blocks += [Section(category, sheets) for category, sheets in categories.items()]
    if thumbnails.left_out:
        blocks.append(f"{counted(thumbnails.left_out, 'thumbnail')} left out, to keep this page small.")
    if thumbnails.failed:
        blocks.append(f"Not shown: {'; '.join(thumbnails.failed[:_MOST_NAMED])}.")
    return Section("Contact sheets", blocks)


def _spread(values: Sequence[float], limits: tuple[float, float], label: int) -> Markup:
    """A box plot without letters, as wide as its cell."""
    low, high = limits
    scaled = 100.0 * (np.quantile(values, _QUANTILES) - low) / max(high - low, 1e-9)
    far_left, left, middle, right, far_right = np.clip(scaled, 0.0, 100.0)
    colour = DEFECTIVE_COLOUR if label else GOOD_COLOUR
    # Left, top, width, height and colour each, of 100 x 16.
    rectangles = (
        (far_left, 7, max(far_right - far_left, 0.5), 2, colour),
        (left, 3, max(right - left, 0.8), 10, colour),
        (min(max(middle - 0.5, 0.0), 99.0), 1, 1, 14, "#000000"),
    )
    return page.render("spread.html", rectangles=rectangles)


def _sizes(looks: Sequence[Look]) -> str:
    sizes = collections.Counter((one.width, one.height) for one in looks)
    if len(sizes) <= _MOST_SIZES_NAMED:
        return ", ".join(f"{width} x {height} ({count:,})" for (width, height), count in sizes.most_common())
    widths, heights = zip(*sizes, strict=True)
    return f"{len(sizes):,} sizes, {min(widths)} to {max(widths)} x {min(heights)} to {max(heights)}"


def _values(looks: Sequence[Look], name: str) -> str:
    found = collections.Counter(getattr(one, name) for one in looks)
    return ", ".join(f"{name} ({count:,})" for name, count in found.most_common())


def _by_category(looks: Iterable[Look]) -> Mapping[str, list[Look]]:
    found: dict[str, list[Look]] = collections.defaultdict(list)
    for one in looks:
        found[one.record.category].append(one)
    return dict(sorted(found.items()))


def _table(names: Sequence[str], figures: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> list[Table | str]:
    """A table; a column of figures that no row fills is left out, and so are rows that are too many.

    Args:
      names: titles of the columns of names, the first of which stays in sight.
      figures: titles of the columns of figures.
      rows: a cell of each column.
    """
    columns = [*(Column(name, "left") for name in names), *map(Column, figures)]
    filled = [i for i in range(len(columns)) if i < len(names) or any(row[i] for row in rows)]
    shown = Table([columns[i] for i in filled], [[row[i] for i in filled] for row in rows[:_MOST_ROWS]])
    rest = len(rows) - _MOST_ROWS
    more = f"{rest:,} more rows are left out here; the CSV tables have every image." if rest > 0 else ""
    return [shown, more]
