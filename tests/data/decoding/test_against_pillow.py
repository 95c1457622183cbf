"""The decoder in the graph beside Pillow on files that contradict themselves: the same pixels, or a refusal by name."""

import io
import struct

import numpy as np
import PIL
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from mvtec_tf.data.decoding import exif, pixels, unreadable
from tests.support import image_samples

# Those of which Pillow itself is wrong are no reference.
_BMPS = [
    content
    for name, (content, _) in image_samples.good().items()
    if name.startswith("bmp") and "black" not in name
]
_FIELDS = [*image_samples.BMP_FIELDS.values(), (18, "I"), (22, "I"), (30, "I")]
_VALUES = (0, 1, 2, 3, 4, 6, 8, 16, 24, 32, 40, 52, 54, 56, 62, 108, 118, 124, 255, 256, 1078, 2**31, 2**32 - 37)
_orientation = tf.function(exif.orientation, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
_SETTINGS = settings(max_examples=80, deadline=None, derandomize=True, database=None)


@_SETTINGS
@given(
    st.sampled_from(_BMPS),
    st.lists(st.tuples(st.sampled_from(_FIELDS), st.sampled_from(_VALUES) | st.integers(-4, 4)), max_size=3),
    st.sampled_from((0, 2000)),
)
def test_a_bmp_with_changed_headers_gives_what_pillow_reads_or_is_refused_by_name(content, changes, more):
    data = bytearray(content + bytes(range(250)) * (more // 250))
    for (at, form), value in changes:
        if at + struct.calcsize(form) <= len(data):
            old = struct.unpack_from("<" + form, data, at)[0]
            changed = value if value > 4 else old + value
            struct.pack_into("<" + form, data, at, changed % 256 ** struct.calcsize(form))
    found, refused = _or_reason(lambda: pixels.decode(tf.constant(bytes(data)), 10**6).numpy())
    expected, unknown = _or_reason(lambda: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    if found is None:
        assert "BMP" in refused or "its header says" in refused
    elif expected is None:
        # Masks in an order that Pillow does not know.
        assert "Unsupported BMP" in unknown
    else:
        np.testing.assert_array_equal(found, expected)


def _or_reason(read):
    try:
        return read(), ""
    except tf.errors.InvalidArgumentError as error:
        return None, unreadable.reason(error)
    # Whatever Pillow stumbles over.
    except Exception as error:
        return None, str(error)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@_SETTINGS
@given(
    st.sampled_from("<>"),
    st.lists(
        st.tuples(
            st.sampled_from((0x0100, image_samples.ORIENTATION, 0x0128)),
            st.sampled_from((1, 2, 3, 4, 7, 8, 9)),
            st.sampled_from((1, 1, 2)),
            st.integers(0, 9),
        ),
        max_size=4,
    ),
    st.integers(0, 9),
    st.integers(0, 80),
    st.booleans(),
)
def test_an_exif_block_says_what_pillow_reads_from_it(order, entries, gap, cut, prefixed):
    def value(kind, number):
        return struct.pack(order + ("HH" if kind in (3, 8) else "I"), *((number, 7) if kind in (3, 8) else (number,)))

    # Of several long numbers the entry would say where they stand.
    rows = [(tag, kind, 1 if kind in (4, 9) else count, number) for tag, kind, count, number in entries]
    # Until version 12 Pillow takes the second of two entries where the first is of a type without numbers.
    assume(int(PIL.__version__.split(".")[0]) > 12 or sum(tag == image_samples.ORIENTATION for tag, *_ in rows) < 2)
    block = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8 + gap) + bytes(gap)
    block += struct.pack(order + "H", len(rows))
    block += b"".join(struct.pack(order + "HHI", tag, kind, count) + value(kind, n) for tag, kind, count, n in rows)
    block = b"Exif\0\0" * prefixed + (block + bytes(4))[: len(block) + 4 - cut // 4 if cut % 4 == 0 else None]
    known = Image.Exif()
    try:
        known.load(block)
        expected = known.get(image_samples.ORIENTATION, 1)
    except Exception:
        expected = 1
    expected = expected if isinstance(expected, int) and 1 <= expected <= 8 else 1
    assert int(_orientation(tf.constant(block))) == expected
