"""The points of an embedding for TensorBoard's projector, with a thumbnail and the row of each image.

Plain files in the form that the projector reads; TensorFlow is not needed for it.
"""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence

from PIL import Image
from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from mvtec_tf.data.pillow_images import UnreadableImageError, read_rgb
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.embedding import Points
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.files import replacing, write_text

CONFIG_FILE = "projector_config.pbtxt"
FOLDER = "projector"
# Browsers draw no larger texture than this; the projector wants one image of all thumbnails.
_MOST_SPRITE_PIXELS = 8192
_THUMBNAIL = 64
_EVENTS_FILE = "events.out.tfevents.0.projector"


def write(folder: str | os.PathLike[str], points: Points, files: Mapping[str, ImageFiles]) -> None:
    """Writes tensors, `metadata.tsv`, thumbnails where the images are known, and the projector's configuration.

    Args:
      folder: the folder of a run of TensorBoard; all but the configuration goes to `projector/` in it.
      points: see `embedding.reduce`.
      files: of every row, by path; empty where the images are not known.

    Raises:
      UserError: an image cannot be read.
    """
    run, folder = pathlib.Path(folder), pathlib.Path(folder) / FOLDER
    tensors = {"embedding": points.components} | ({} if points.tsne is None else {"t-SNE": points.tsne})
    names = {name: f"{name.lower().replace('-', '')}.tsv" for name in tensors}
    for name, values in tensors.items():
        write_text(folder / names[name], "".join("\t".join(f"{x:.6g}" for x in row) + "\n" for row in values))
    write_text(folder / "metadata.tsv", _metadata(points))
    paths = points.table.path.tolist()
    sprite = ""
    if all(path in files and files[path].image for path in paths):
        sprite = "sprite.jpg"
        side = min(_THUMBNAIL, _MOST_SPRITE_PIXELS // math.ceil(math.sqrt(len(paths))))
        with replacing(folder / sprite) as temporary:
            _sprite([files[path].image for path in paths], side).save(temporary, "JPEG", quality=85)
    else:
        (folder / "sprite.jpg").unlink(missing_ok=True)
        side = 0
    if not any(run.glob("*tfevents*")):
        # TensorBoard looks for the configuration in folders with an event file only; this one holds nothing else.
        with replacing(run / _EVENTS_FILE) as temporary, temporary.open("wb") as file:
            event = event_pb2.Event(wall_time=0, file_version="brain.Event:2")
            RecordWriter(file).write(event.SerializeToString())
    write_text(run / CONFIG_FILE, _config(names, sprite, side))


def _config(names: Mapping[str, str], sprite: str, side: int) -> str:
    blocks = []
    for name, file in names.items():
        lines = [
            f'  tensor_name: "{name}"',
            f'  tensor_path: "{FOLDER}/{file}"',
            f'  metadata_path: "{FOLDER}/metadata.tsv"',
        ]
        if sprite:
            lines.append(
                f'  sprite {{ image_path: "{FOLDER}/{sprite}" single_image_dim: {side} single_image_dim: {side} }}'
            )
        blocks.append("embeddings {\n" + "\n".join(lines) + "\n}\n")
    return "".join(blocks)


def _metadata(points: Points) -> str:
    table = points.table
    lines = ["path\tlabel\tcategory\tdefect\tscore"]
    for row in table.rows():
        label = "defective" if row.label else "good"
        fields = [row.path, label, row.category, row.defect, f"{row.score:.6g}"]
        # A tabulator in a name would shift the columns of its row.
        lines.append("\t".join(" ".join(field.split()) or "-" for field in fields))
    return "\n".join(lines) + "\n"


def _sprite(images: Sequence[str], side: int) -> Image.Image:
    """All thumbnails in a square, row by row, as the projector expects them."""
    across = math.ceil(math.sqrt(len(images)))
    sheet = Image.new("RGB", (across * side, across * side), "white")
    for number, file in enumerate(images):
        try:
            image = read_rgb(file)
        except UnreadableImageError as error:
            raise UserError(f"{file}: {error}. Mend the file or leave its row out of the table.") from error
        image.thumbnail((side, side), Image.Resampling.BILINEAR)
        left, top = (number % across) * side, (number // across) * side
        sheet.paste(image, (left + (side - image.width) // 2, top + (side - image.height) // 2))
    return sheet
