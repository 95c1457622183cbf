"""The same records as a TensorFlow Datasets builder; importing this module registers it as `mvtec_ad`.

Example:
  import tensorflow_datasets as tfds
  from mvtec_tf.data import builder
  config = tfds.download.DownloadConfig(manual_dir="DATA")
  data = tfds.load("mvtec_ad/folder", split="test", data_dir="prepared",
                   download_and_prepare_kwargs={"download_config": config})
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from mvtec_tf.data import masks, walk
from mvtec_tf.data.decoding import pixels, unreadable
from mvtec_tf.data.formats import image_list, layout, mvtec_archive
from mvtec_tf.data.formats import scan as records
from mvtec_tf.data.masks import MaskError
from mvtec_tf.data.record import TEST, TRAIN, Record
from mvtec_tf.errors import UserError

FOLDER, ORIGINAL = "folder", "original"
LABELS = ("good", "defective")
_DESCRIPTION = """Photographs of industrial products for defect detection: good ones to train on, good and defective
ones to test. MVTec AD has 15 categories and 73 defect types; any folder of that layout, a plain folder of good and
defective images, and a CSV list give the same features."""
_CITATION = """@article{bergmann2021mvtec,
  title={The {MVTec} Anomaly Detection Dataset: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection},
  author={Bergmann, Paul and Batzner, Kilian and Fauser, Michael and Sattlegger, David and Steger, Carsten},
  journal={International Journal of Computer Vision},
  volume={129},
  number={4},
  pages={1038--1059},
  year={2021}
}
@inproceedings{bergmann2019mvtec,
  title={{MVTec AD} -- A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection},
  author={Bergmann, Paul and Fauser, Michael and Sattlegger, David and Steger, Carsten},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages={9584--9592},
  year={2019}
}"""


class MvtecAd(tfds.core.GeneratorBasedBuilder):
    """Photographs of products, good and defective, as `records.scan` reads them.

    `mvtec_ad/folder` takes what lies in `manual_dir`; `mvtec_ad/original` the original archive of MVTec AD,
    from `manual_dir` if it lies there, else downloaded, and verified in either case. A `data_dir` of
    TensorFlow Datasets keeps one copy of each: prepare another folder into another `data_dir`.
    `info.metadata["fingerprint"]` says which images it holds.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=FOLDER, description="A folder of your own, in any layout that `data_dir` takes."),
        tfds.core.BuilderConfig(name=ORIGINAL, description="The original MVTec AD archive, verified by its SHA-256."),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"{FOLDER}: categories (CATEGORY/train/good, CATEGORY/test/good, CATEGORY/test/DEFECT; or CATEGORY/good and "
        f"CATEGORY/defective), or one .csv file with the columns path,label. {ORIGINAL}: {mvtec_archive.FILE} from "
        f"{mvtec_archive.PAGE}, or nothing, then it is downloaded."
    )
    # Another archive has another checksum; only tests have another archive.
    archive_sha256 = mvtec_archive.SHA256
    archive_urls = mvtec_archive.URLS

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "path": tfds.features.Text(doc="Name of the image in every table."),
                "image": tfds.features.Image(doc="RGB, upright, of the file's own size."),
                "mask": tfds.features.Image(
                    shape=(None, None, 1), doc="255 on the defect, else 0; all 0 where has_mask is False."
                ),
                "has_mask": tfds.features.Scalar(np.bool_, doc="Whether the source has a mask of this image."),
                "label": tfds.features.ClassLabel(names=LABELS),
                "category": tfds.features.Text(doc="The product."),
                "defect": tfds.features.Text(doc='The defect type, or "good".'),
                "group": tfds.features.Text(doc="The physical object; images with the same one belong on one side."),
                "split": tfds.features.Text(doc="train or test, as the source has it."),
            }
        )
        return self.dataset_info_from_configs(
            features=features,
            supervised_keys=("image", "label"),
            homepage=mvtec_archive.PAGE,
            description=_DESCRIPTION,
            citation=_CITATION,
            license="MVTec AD: CC BY-NC-SA 4.0. A folder of your own: yours.",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        original = self.builder_config.name == ORIGINAL
        source = self._unpacked(dl_manager) if original else _source(dl_manager.manual_dir)
        found = records.scan([source], say=print)
        self.info.metadata["fingerprint"] = records.fingerprint(found)
        parts = {split: [record for record in found if record.split == split] for split in (TRAIN, TEST)}
        also_of = masks.shared(found)
        for sentence in masks.sentences(masks.unclaimed(found)):
            print(sentence)
        return {split: self._generate_examples(part, also_of) for split, part in parts.items() if part}

    def _generate_examples(
        self, part: list[Record], mask_also_of: Mapping[str, str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for record in part:
            yield record.path, _example(record, mask_also_of.get(record.path, ""))

    def _unpacked(self, dl_manager: tfds.download.DownloadManager) -> pathlib.Path:
        by_hand = _manual_dir(dl_manager)
        archive = by_hand / mvtec_archive.FILE if by_hand else None
        if archive is None or not archive.exists():
            archive = pathlib.Path(dl_manager.download_dir) / mvtec_archive.FILE
            mvtec_archive.download(archive, self.archive_urls, self.archive_sha256)
        # The name says what is in it, so that a folder that exists is the right one, whole.
        target = pathlib.Path(dl_manager.download_dir) / "extracted" / f"mvtec_ad_{self.archive_sha256[:16]}"
        return mvtec_archive.unpack(archive, target, self.archive_sha256)


def _manual_dir(dl_manager: tfds.download.DownloadManager) -> pathlib.Path | None:
    """The folder of what was got by hand, if there is one with something in it."""
    try:
        return pathlib.Path(dl_manager.manual_dir)
    except AssertionError:  # what TensorFlow Datasets raises for a missing or empty one
        return None


def _source(manual_dir: Any) -> pathlib.Path:
    """`manual_dir`, or the one CSV list in it if it holds no categories: a manual_dir cannot be a file."""
    folder = pathlib.Path(manual_dir)
    children = (child for child in folder.iterdir() if not walk.is_clutter(child.name))
    tables = [child for child in children if child.suffix.lower() == image_list.SUFFIX]
    below = (layout.kinds(folder / name) for name in layout.folder_names(folder))
    return tables[0] if len(tables) == 1 and not layout.kinds(folder) and not any(below) else folder


def _example(record: Record, mask_also_of: str) -> dict[str, Any]:
    content, image = _decoded(record.file)
    return {
        "path": record.path,
        "image": content if _any_reader_sees(content, image) else image,
        "mask": _mask(record, mask_also_of, image.shape[:2]),
        "has_mask": bool(record.mask),
        "label": record.label,
        "category": record.category,
        "defect": record.defect,
        "group": record.group,
        "split": record.split,
    }


def _decoded(file: str) -> tuple[bytes, np.ndarray]:
    """A file's bytes, and its pixels uint8 [H, W, 3] as training and serving see them."""
    try:
        content = pathlib.Path(file).read_bytes()
        return content, pixels.decode(tf.constant(content)).numpy()
    except OSError as error:
        raise UserError(f"{file}: the file cannot be read ({error.strerror}). Repair or remove it.") from error
    except tf.errors.OpError as error:
        raise UserError(f"{file}: {unreadable.reason(error)}. Repair or remove it.") from error


def _mask(record: Record, also_of: str, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 1], 255 on the defect. What was prepared outlives its warnings, so a bad mask ends it."""
    mask = np.zeros(size, bool)
    if record.mask:
        try:
            masks.refuse_shared(also_of)
            mask = masks.read(record.mask, size)
        except MaskError as error:
            # Some data sets have black masks of good images.
            if record.label or error.state != masks.EMPTY:
                raise UserError(f"{record.file}: {error}. Mend or remove {record.mask}.") from error
    return np.where(mask, 255, 0).astype(np.uint8)[..., None]


def _any_reader_sees(content: bytes, image: np.ndarray) -> bool:
    """Whether the decoder of TensorFlow Datasets, which knows no Exif and few palettes, gives these very pixels.

    Then the file is stored as it is; else its pixels are, as PNG.
    """
    try:
        plain = tf.image.decode_image(content, channels=3).numpy()
    except tf.errors.OpError:
        return False
    return plain.shape == image.shape and bool(np.array_equal(plain, image))
