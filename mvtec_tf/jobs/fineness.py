"""Whether the patches that a head looks at are fine enough for the smallest defect that matters."""

import math
from collections.abc import Sequence

from mvtec_tf.data import pillow_images
from mvtec_tf.data.record import Record
from mvtec_tf.jobs.probe_features import Features

# Of fewer cells a defect shares every one of them with what is around it.
CELLS = 2.0


def note(pixels: float, photographs: Sequence[Record], features: Features) -> str:
    """How many patches a defect covers along one side, where they are coarsest, and what would be fine enough.

    Args:
      pixels: width of the defect in the photographs.
      photographs: as they are on the disk.
      features: with maps.
    """
    height, width = next(iter(features.frozen.maps.values())).shape[1:3]
    sizes = {pillow_images.upright_size(record.file) for record in photographs}
    cells = pixels * min(min(width / across, height / down) for down, across in sizes)
    text = f"A defect of {pixels:g} px covers {cells:.2g} of the finest patches along one side"
    if cells >= CELLS:
        return f"{text}; {CELLS:g} are enough."
    times = math.ceil(CELLS / cells - 1e-9)
    rows, columns = (times * count for count in features.key.tiles)
    side = times * round(math.sqrt(math.prod(features.key.image_size) / math.prod(features.key.tiles)))
    return (
        f"{text}, and of fewer than {CELLS:g} most is averaged away, so it may be missed at any threshold. Fine enough "
        f"are `tiles`={rows}x{columns} or `image_size`={side}, without the recipe (`head`=patchcore), or photographs "
        "cropped to the part."
    )
