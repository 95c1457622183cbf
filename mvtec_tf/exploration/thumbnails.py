"""Small JPEGs of a data set's images for a page that must stay small."""

import base64
import io

from markupsafe import Markup
from PIL import Image

from mvtec_tf.data import masks
from mvtec_tf.data.masks import MaskError
from mvtec_tf.data.pillow_images import UnreadableImageError, read_rgb
from mvtec_tf.evaluation.report import photographs

# Shown at most 150 CSS pixels wide or high.
_SIDE = 180
_QUALITY = 75
_IMAGE = Markup('<img width="{}" height="{}" alt="{}" src="data:image/jpeg;base64,{}">')


class Thumbnails:
    """Draws thumbnails until the page is full; what was left out is counted.

    Attributes:
      left_out: thumbnails asked for beyond the budget.
      failed: names of images that could not be read again.
    """

    def __init__(self, budget: int) -> None:
        """Args: budget: characters of HTML that all thumbnails together may take."""
        self._budget = budget
        self.left_out = 0
        self.failed: list[str] = []

    def html(self, file: str, name: str, mask: str = "") -> Markup:
        """An `img` element, "" if the page is full or the file cannot be read.

        Args:
          file: the image.
          name: what it is called, for the alternative text.
          mask: file of a usable mask to outline, "" for none.
        """
        if not self._budget:
            self.left_out += 1
            return Markup()
        try:
            content, size = _jpeg(file, mask)
        except (UnreadableImageError, MaskError) as error:
            self.failed.append(f"{name}: {error}")
            return Markup()
        data = base64.b64encode(content).decode("ascii")
        text = _IMAGE.format(*size, name, data)
        if len(text) > self._budget:
            # The next, smaller one might fit, but pictures missing here and there would look like an error.
            self._budget = 0
            self.left_out += 1
            return Markup()
        self._budget -= len(text)
        return text


def _jpeg(file: str, mask: str) -> tuple[bytes, tuple[int, int]]:
    image = read_rgb(file)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    if mask:
        image = photographs.outlined(image, masks.read(mask))
    buffer = io.BytesIO()
    # Full colour resolution for the outline, one pixel wide; halved, it would turn grey.
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True, subsampling="4:4:4" if mask else "4:2:0")
    return buffer.getvalue(), image.size
