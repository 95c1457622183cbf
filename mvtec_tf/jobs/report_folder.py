"""Where a report is written: nowhere that it would take another thing's place."""

import os
import pathlib
from collections.abc import Sequence

from mvtec_tf.data.formats import layout
from mvtec_tf.errors import UserError
from mvtec_tf.files import PathLike
from mvtec_tf.ownership import Owned


def report_folder(
    out: PathLike, of_run: PathLike | None = None, sources: Sequence[str] = (), judged: str | None = None
) -> Owned:
    """The folder of a report, this process' own while it is written.

    Args:
      out: the folder, as it was asked for.
      of_run: the run that is reported on, whose folder may be this one.
      sources, judged: see `refuse_among_photographs`.

    Raises:
      UserError: it is another run's folder, an exported model's, or a category's of photographs; or see
        `refuse_among_photographs` and `Owned`.
    """
    folder, found = pathlib.Path(out), ""
    own = of_run is not None and folder.resolve() == pathlib.Path(of_run).resolve()
    if (folder / "run.json").exists() and not own:
        found = "a run, with a report of its own"
    elif (folder / "saved_model.pb").exists():
        found = "an exported model"
    elif parts := layout.parts(folder):
        found = f"photographs ({', '.join(sorted(name for names in parts.values() for name in names))})"
    if found:
        raise UserError(f"`out`={out}: holds {found}; a report is no part of that. Choose another folder.")
    refuse_among_photographs(out, "`out`", sources, judged)
    return Owned(out, "`out`")


def refuse_among_photographs(
    folder: PathLike, named: str, sources: Sequence[str] = (), judged: str | None = None
) -> None:
    """Refuses to write pictures where the next look at the photographs would find them.

    Args:
      folder: that is to be written.
      named: the setting that says so.
      sources: where photographs are looked for as for training.
      judged: folder in which every image is taken for a photograph.

    Raises:
      UserError: it lies in a part of a category, in a category of the plain layout, or in `judged`.
    """
    whole = os.path.realpath(folder)
    above = list(map(str, pathlib.Path(whole).parents))
    found = judged if judged and os.path.realpath(judged) in (whole, *above) else ""
    category = layout.category_of(whole)
    for source in map(os.path.realpath, sources):
        # Beside train/ and test/ there may be other folders, beside good/ and defective/ none.
        within = above[: above.index(source) + 1] if source in above else []
        found = next((one for one in within if one == category or layout.PLAIN in layout.kinds(one)), found)
    if found:
        raise UserError(
            f"{named}={folder}: lies among the photographs in {found}, which the next look at them would stumble over. "
            "Choose a folder outside of it."
        )
