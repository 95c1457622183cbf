"""What an export says to files that are no photographs: a clear answer for each, no crash, no memory lost."""

import io
import pathlib
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mvtec_tf.serving.client import BadImageError, LocalModel


def _encoded(form, **more):
    ramp = np.linspace(0, 255, 40 * 50 * 3).reshape(40, 50, 3).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, form, **more)
    return buffer.getvalue()


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png_of_size(width, height, rows=1):
    """A header that promises width x height, with little behind it: a small file that wants a large memory."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    # Of zeros, a row once compressed is every row, and Adler's sum is known: all of them would take ten seconds.
    row = deflate.compress(bytes(1 + 3 * width)) + deflate.flush(zlib.Z_FULL_FLUSH) if rows else b""
    adler = rows * (1 + 3 * width) % 65521 << 16 | 1
    content = b"\x78\x9c" + row * rows + b"\x03\0" + struct.pack(">I", adler)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")


def _animated(form):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


PNG, JPEG = _encoded("PNG"), _encoded("JPEG")
# name -> (contents, what the answer must say)
REFUSED = {
    "a file of 0 bytes": (b"", "empty"),
    "a truncated PNG": (PNG[: len(PNG) // 2], "damaged|truncated|PNG"),
    "a PNG without its end": (PNG[:-30], "damaged|truncated|PNG"),
    "a truncated JPEG": (JPEG[: len(JPEG) // 2], "damaged|truncated|JPEG"),
    "a PNG of 30,000 x 30,000": (_png_of_size(30_000, 30_000, rows=30_000), "pixels"),
    "a PNG of 2^31-1 x 2^31-1": (_png_of_size(2**31 - 1, 2**31 - 1, rows=0), "PNG|pixels"),
    "a PNG of 0 x 0": (_png_of_size(0, 0, rows=0), "PNG|pixels"),
    "an animated GIF": (_animated("GIF"), "GIF"),
    "SVG named .png": (b'<svg xmlns="http://www.w3.org/2000/svg"><circle r="9"/></svg>', "text"),
    "HTML named .png": (b"<!DOCTYPE html><html><body>404</body></html>", "text"),
    "a PNG signature before HTML": (PNG[:8] + b"<html></html>" * 20, "damaged|PNG"),
    "a JPEG beginning before a PNG": (JPEG[:4] + PNG, "damaged|JPEG"),
    "noise": (np.random.default_rng(0).bytes(5000), "expected a PNG, JPEG or BMP"),
}
# Polyglots whose first part is a whole image: what follows it is nobody's business.
ANSWERED = {
    "a PNG with a ZIP behind it": PNG + b"PK\x03\x04" + bytes(200),
    "a JPEG with HTML in a comment": JPEG[:2] + b"\xff\xfe\x00\x1c<script>alert(1)</script>\n" + JPEG[2:],
    "a PNG with PHP in a text": PNG[:33] + _chunk(b"tEXt", b"Comment\0<?php phpinfo(); ?>") + PNG[33:],
}


@pytest.fixture(scope="module")
def model(exported):
    return LocalModel(exported)


@pytest.mark.parametrize("name", REFUSED)
def test_each_is_refused_with_its_reason_by_every_signature(model, name):
    content, words = REFUSED[name]
    for signature in ("serving_default", "explain"):
        with pytest.raises(BadImageError, match=words) as refused:
            model(signature, [PNG, content])
        assert "\n" not in str(refused.value)
        assert "{{" not in str(refused.value)


@pytest.mark.parametrize("name", ANSWERED)
def test_what_stands_behind_or_between_an_image_changes_nothing(model, name):
    plain = PNG if "PNG" in name else JPEG
    scores = model("serving_default", [ANSWERED[name], plain])["anomaly_score"]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_an_animated_png_is_its_still_picture(model):
    still = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(still, "PNG")
    scores = model("serving_default", [_animated("PNG"), still.getvalue()])["anomaly_score"]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_five_hundred_hostile_requests_leave_the_memory_where_it_was(model):
    hostile = [content for content, _ in REFUSED.values()] + list(ANSWERED.values()) + [PNG, JPEG]

    def ask(count):
        for number in range(count):
            signature = "explain" if number % 5 == 0 else "serving_default"
            try:
                model(signature, [hostile[number % len(hostile)]])
            except BadImageError:
                continue

    # The allocator's arenas fill once; a leak goes on.
    ask(4 * len(hostile))
    before = _resident_bytes()
    ask(500)
    assert _resident_bytes() <= 1.1 * before


def _resident_bytes():
    fields = pathlib.Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def test_the_model_still_answers_after_all_that(model):
    answer = model("serving_default", [PNG, JPEG])
    assert np.isfinite(answer["anomaly_score"]).all()
    assert isinstance(tf.constant(answer["label"]).numpy()[0], np.int64)
