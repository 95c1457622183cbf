"""Recent photographs without labels: a threshold that no label was bought for is raised with how they score."""

import os
from collections.abc import Callable, Sequence

import numpy as np

from mvtec_tf import files
from mvtec_tf.data import pillow_images
from mvtec_tf.data.decoding import image_store, unreadable
from mvtec_tf.data.pillow_images import UnreadableImageError
from mvtec_tf.data.protocol import Cut
from mvtec_tf.data.record import Record, Unreadable
from mvtec_tf.data.words import counted
from mvtec_tf.errors import LeakError, UserError
from mvtec_tf.evaluation import shift, table
from mvtec_tf.evaluation.shift import MOST_DEFECTIVE, Shift
from mvtec_tf.evaluation.table import Predictions
from mvtec_tf.exploration import images
from mvtec_tf.heads.fitting import FittedProbe
from mvtec_tf.jobs.fields import ERROR
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.serving import inputs

# The median of so many good parts is known to 0.4 standard deviations.
LEAST = 10


def find(
    folder: str | None, cut: Cut, max_pixels: int, on_bad_image: str = ERROR
) -> tuple[tuple[str, ...], tuple[Unreadable, ...]]:
    """The photographs of a folder, each content once, and those that are left out; none where no folder is named.

    Args:
      folder: that was named, or None.
      cut: the images of the run, none of which may be among them, nor a copy of the same bytes or the same pixels.
      max_pixels: most pixels of a photograph.
      on_bad_image: what is done about one that cannot be used, see `ImageSettings`.

    Raises:
      UserError: no such folder, too few photographs in it, one that cannot be read, one that was fitted on, or several
        categories that they might be of.
      LeakError: one of them is evaluated.
    """
    if folder is None:
        return (), ()
    where = f"`unlabelled`={folder}"
    if not os.path.isdir(folder):
        what = "a file" if os.path.exists(folder) else "nothing"
        raise UserError(f"{where}: expected a folder of photographs, found {what}.")
    categories = sorted({record.category for record in cut.fit})
    if len(categories) > 1:
        raise UserError(
            f"{where}: nothing says which of the {len(categories)} categories a photograph without a label shows. Fit "
            f"each by itself (`categories`={categories[0]})."
        )
    found = {files.sha256(path): path for path in reversed(inputs.expand([folder], say=print))}
    _refuse_known(where, sorted(found.values()), cut, files.sha256)
    every = [Record(path, path, "", "", 0, "", path) for path in sorted(found.values())]
    good, bad = image_store.check(every, max_pixels)
    if on_bad_image == ERROR:
        unreadable.refuse(bad, len(every))
    if bad:
        print(unreadable.listing([(one.record.path, one.reason) for one in bad]), flush=True)
    found = {_pixels_of(one.file): one.file for one in reversed(good)}
    if len(found) < LEAST:
        raise UserError(
            f"{where}: {counted(len(found), 'photograph')} of different contents, and at least {LEAST} are needed: "
            "fewer do not say how high good parts score today."
        )
    recent = tuple(sorted(found.values()))
    # Only files of one size can have the same pixels; their headers are read far faster than they are decoded.
    sizes = set(map(_size_of, recent))
    _refuse_known(where, recent, cut, lambda file: _pixels_of(file) if _size_of(file) in sizes else "")
    return recent, bad


def _pixels_of(file: str) -> str:
    try:
        return images.pixel_hash(pillow_images.read_stored(file))
    # An image of the run that cannot be used is named where it is used; one beyond Pillow's limit has its bytes.
    except UnreadableImageError:
        return files.sha256(file)


def _size_of(file: str) -> tuple[int, int] | None:
    try:
        return pillow_images.upright_size(file)
    except UnreadableImageError:
        return None


def _refuse_known(where: str, recent: Sequence[str], cut: Cut, digest: Callable[[str], str]) -> None:
    found = {digest(path): path for path in recent}
    for records, error, what in (
        (cut.evaluate, LeakError, "is evaluated, and the threshold may not have seen it"),
        (cut.fit, UserError, "was fitted on, so it says nothing of new ones"),
    ):
        known = [(found[one], record) for record in records if (one := digest(record.file)) in found]
        if known:
            path, record = known[0]
            more = f" (and {len(known) - 1} more such)" if known[1:] else ""
            raise error(f"{where}: {path} is the image {record.path}{more}, which {what}. Take it out of the folder.")


def moved(
    run: RunDirectory, recent: np.ndarray, held_out: Sequence[Record], fitted: FittedProbe
) -> tuple[FittedProbe, str]:
    """The head with its held-out scores raised to where recent photographs score, where `Shift.raises` says so.

    Args:
      run: is told what was found.
      recent: float [N], scores of the photographs of `find`; none: nothing is done.
      held_out: the good images that `fitted` has out-of-fold scores of.
      fitted: the head.

    Returns:
      The head, and what the threshold rests on, see `summary.sentences`.
    """
    if not len(recent):
        return fitted, ""
    held = Predictions.from_rows(table.rows(held_out, "calibrate", fitted.calibrate_scores))
    found = shift.of_unlabelled(held, recent)
    basis = words(found, above_all=bool(recent.min() > held.score.max()))
    run.note(unlabelled=found.as_json() | {"raised_by": found.difference if found.raises else 0.0})
    print(basis, flush=True)
    return fitted.with_scores(held_out, held.score + found.difference) if found.raises else fitted, basis


def words(found: Shift, above_all: bool) -> str:
    """What the report says first of the photographs, and what they cannot say."""
    share, training = f"{100 * MOST_DEFECTIVE:g} %", "the held-out good training images"
    count = f"{counted(found.evaluated, 'photograph')} without labels"
    if not found.raises:
        return f"{found.in_words(f'The {count}', training)}, so the threshold was left as it is."
    text = (
        f"The threshold rests on {count}: {found.in_words('they', training)}, and the held-out scores were raised by "
        f"as much. The test takes the highest {share} for defects; if more are, which no score can tell, defects pass."
    )
    if above_all:
        text += " All of them score above every held-out good image: look at some before you believe the threshold."
    return text
