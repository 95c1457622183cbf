"""Where a report is written: nowhere that it would take another thing's place."""

import pathlib

from mvtec_tf.data.formats import layout
from mvtec_tf.errors import UserError
from mvtec_tf.files import PathLike
from mvtec_tf.ownership import Owned


def report_folder(out: PathLike, of_run: PathLike | None = None) -> Owned:
    """The folder of a report, this process' own while it is written.

    Args:
      out: the folder, as it was asked for.
      of_run: the run that is reported on, whose folder may be this one.

    Raises:
      UserError: it is another run's folder, an exported model's, or a category's of photographs; or see `Owned`.
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
    return Owned(out, "`out`")
