"""Getting a data set: drawn, or unpacked from the original archive."""

import pathlib

from mvtec_tf.data.formats import mvtec_archive
from mvtec_tf.data.toy import factory as toy
from mvtec_tf.jobs.settings import FetchSettings, ToySettings
from mvtec_tf.ownership import Owned


def make_toy(settings: ToySettings) -> None:
    """Draws the toy factory, and prints what is in it.

    Raises:
      UserError: a setting is out of range, or the folder holds something else.
    """
    numbers = {name: getattr(settings, name) for name in ("train_good", "test_good", "per_defect")}
    with Owned(settings.out, "`out`", new=True):
        categories = toy.write_toy_factory(
            settings.out, seed=settings.seed, image_size=settings.image_size, products=settings.products, **numbers
        )
    for category in categories:
        defects = ", ".join(toy.CATEGORIES[category].defects)
        print(
            f"{category}: {settings.train_good} good images for training, {settings.test_good} good and "
            f"{settings.per_defect} of each defect ({defects}) for testing"
        )
    print(settings.out)


def fetch_mvtec(settings: FetchSettings) -> None:
    """Unpacks the verified archive into a new folder, and downloads it before if none is given.

    Raises:
      UserError: the archive cannot be had, or is another one.
    """
    out = pathlib.Path(settings.out)
    with Owned(out, "`out`", new=True):
        if out.is_dir():
            print(f"{out} is there already, so nothing is unpacked. Name another folder, or remove it, to unpack anew.")
        else:
            archive = settings.archive or mvtec_archive.download(out.parent / mvtec_archive.FILE)
            mvtec_archive.unpack(archive, out)
    print(out)
