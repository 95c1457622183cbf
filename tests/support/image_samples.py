"""Image files of every kind that people have, written byte by byte where Pillow cannot, each with its pixels.

The expected pixels come from NumPy and Pillow, never from the decoder under test; those of JPEGs, which every
library decodes a little differently, from TensorFlow's bare decoder, turned by Pillow.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

HEIGHT, WIDTH = 37, 50  # neither square nor a multiple of what rows are padded to
ORIENTATION = 0x0112
_TOO_LARGE = "its header says 60000 x 60000 pixels, 3600000000 in all; `max_pixels` allows 100000000"


def colours():
    """uint8 [H, W, 3]: noise on gradients that differ by corner, so that no turn leaves it as it is."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ramp = np.stack([x * 4, y * 5, x + 2 * y], axis=-1)
    noise = np.random.default_rng(0).integers(0, 30, ramp.shape)
    return (ramp + noise).astype(np.uint8)


def good():
    """name -> (bytes, uint8 [H, W, 3])."""
    return _pngs() | _bmps()


def jpegs():
    """name -> (bytes, orientation, or 1 if it says none)."""
    image = Image.fromarray(colours())
    found = {
        "jpeg colour": (_encoded(image, "JPEG", quality=90), 1),
        "jpeg grey": (_encoded(image.convert("L"), "JPEG", quality=90), 1),
        "jpeg progressive": (_encoded(image, "JPEG", progressive=True), 1),
        "jpeg of four inks": (_encoded(image.convert("CMYK"), "JPEG", quality=90), 1),
        "jpeg with bytes behind its end": (_encoded(image, "JPEG") + b"\0\0camera", 1),
    }
    more = io.BytesIO()
    image.save(more, "MPO", save_all=True, append_images=[image.rotate(90)])
    found["jpeg with a second picture"] = (more.getvalue(), 1)
    for orientation in range(1, 9):
        for order in "<>":
            block = exif(orientation, order)
            found[f"jpeg turned {orientation}{order}"] = (_encoded(image, "JPEG", exif=block), orientation)
    plain = _encoded(image, "JPEG", quality=90)
    app1 = _segment(0xE1, exif(6, ">"))
    comment = _segment(0xFE, b"Exif\0\0 stands here without being any")
    profile = _segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000))
    found["jpeg turned, not in the first segment"] = (plain[:2] + comment + profile + app1 + plain[2:], 6)
    found["jpeg turned, fill bytes between segments"] = (plain[:2] + b"\xff\xff\xff" + app1 + plain[2:], 6)
    found["jpeg that only mentions Exif"] = (plain[:2] + comment + plain[2:], 1)
    found["jpeg with an orientation of 9"] = (plain[:2] + _segment(0xE1, exif(9, "<")) + plain[2:], 1)
    found["jpeg with Exif cut short"] = (plain[:2] + _segment(0xE1, exif(6, "<")[:20]) + plain[2:], 1)
    found["jpeg with Exif of nonsense"] = (plain[:2] + _segment(0xE1, b"Exif\0\0" + b"\xff" * 40) + plain[2:], 1)
    entry = struct.pack("<HHIHH", ORIENTATION, 3, 1, 6, 0)
    for name, entries in {
        "said twice": [entry, struct.pack("<HHIHH", ORIENTATION, 3, 1, 3, 0)],
        "said once and then of no type": [entry, struct.pack("<HHIHH", ORIENTATION, 7, 1, 3, 0)],
        "said by two numbers": [struct.pack("<HHIHH", ORIENTATION, 3, 2, 6, 1)],
        "said by a signed number": [struct.pack("<HHIHH", ORIENTATION, 8, 1, 6, 0)],
    }.items():
        block = b"Exif\0\0II" + struct.pack("<HIH", 42, 8, len(entries)) + b"".join(entries) + bytes(4)
        found[f"jpeg turned, {name}"] = (plain[:2] + _segment(0xE1, block) + plain[2:], 6)
    crossed = exif(6, "<")[:8] + b"\0*" + exif(6, "<")[10:]
    found["jpeg turned, its order of bytes said wrongly"] = (plain[:2] + _segment(0xE1, crossed) + plain[2:], 6)
    found["jpeg with an orientation of four bytes"] = (
        plain[:2] + _segment(0xE1, exif(8, ">", long=True)) + plain[2:],
        8,
    )
    return found


def refused():
    """name -> (bytes, words of the refusal)."""
    image = Image.fromarray(colours())
    png, jpeg, bmp = (_encoded(image, kind) for kind in ("PNG", "JPEG", "BMP"))
    rle = bytearray(_encoded(image.quantize(16), "BMP"))
    rle[30] = 1
    masks = bytearray(_encoded(image.convert("RGBA"), "BMP"))
    masks[30:34], masks[54:66] = struct.pack("<I", 3), struct.pack("<III", 0x3FF00000, 0xFFC00, 0x3FF)
    huge = struct.pack(">II", 60_000, 60_000), struct.pack("<ii", 60_000, 60_000)
    contradictions = _contradictory_bmps()
    few = bytearray(_encoded(image.quantize(200), "BMP"))
    few[46:50] = struct.pack("<I", 7)
    return {
        "empty": (b"", "an empty file"),
        "text": (b"no image at all", "something else"),
        "one byte": (b"\x89", "something else"),
        "page": (b"<!doctype html><title>404</title>", r"a text \(HTML, SVG or XML\)"),
        "drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', r"a text \(HTML, SVG or XML\)"),
        "gif": (_encoded(image, "GIF"), "a GIF image"),
        "gif with two frames": (_encoded(image, "GIF", save_all=True, append_images=[image.rotate(90)]), "a GIF image"),
        "webp": (_encoded(image, "WEBP"), "a WebP image"),
        "tiff": (_encoded(image, "TIFF"), "a TIFF image"),
        "png cut": (png[: len(png) // 2], "a truncated or damaged PNG image"),
        "png without its last byte": (png[:-1], "a truncated or damaged PNG image"),
        "png with a changed byte": (_changed(png), "a truncated or damaged PNG image"),
        "png signature alone": (png[:8], r"does not begin with a header \(IHDR\)"),
        "png of 60,000 x 60,000": (png[:16] + huge[0] + png[24:], _TOO_LARGE),
        "png of 2^32 - 1": (png[:16] + b"\xff" * 8 + png[24:], "its header says 4294967295 x 4294967295 pixels"),
        "png of nothing": (png[:16] + struct.pack(">II", 0, 9) + png[24:], "its header says 0 x 9 pixels"),
        "jpeg cut": (jpeg[: len(jpeg) // 2], "a truncated JPEG image"),
        "jpeg cut within its header": (jpeg[:30], "a truncated JPEG image"),
        "jpeg without its end": (jpeg[:-2], "a truncated JPEG image"),
        "jpeg cut behind a preview of its own": (_with_preview(jpeg)[: -len(jpeg) // 2], "a truncated JPEG image"),
        "jpeg progressive, cut": (_encoded(image, "JPEG", progressive=True)[:-200], "a truncated JPEG image"),
        "jpeg with a changed table": (_changed(jpeg, 24), "a truncated or damaged JPEG image"),
        "jpeg of 60,000 x 60,000": (_jpeg_of(jpeg, 60_000, 60_000), _TOO_LARGE),
        **_strange_jpegs(jpeg),
        "bmp cut": (bmp[:-200], "a truncated BMP image"),
        "bmp header cut": (bmp[:20], "a BMP image"),
        "bmp signature alone": (b"BM", "a BMP image"),
        "bmp of 60,000 x 60,000": (bmp[:18] + huge[1] + bmp[26:], _TOO_LARGE),
        "bmp of 16 bits": (bmp[:28] + b"\x10" + bmp[29:], "of 16 bits per pixel"),
        "bmp of OS/2": (bmp[:14] + b"\x0c" + bmp[15:], "OS/2"),
        "bmp run-length coded": (bytes(rle), "run-length coding"),
        "bmp of ten bits a colour": (bytes(masks), "colour masks"),
        "bmp with colours outside its palette": (bytes(few), "more colours than the 7 of its palette"),
        **contradictions,
    }


def _changed(content, place=200):
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def _with_preview(jpeg):
    """A JPEG whose Exif block holds a small whole one, as cameras write it."""
    return jpeg[:2] + _segment(0xE1, exif(1) + jpeg[:2] + jpeg[-2:]) + jpeg[2:]


def exif(orientation, order="<", long=False):
    """An Exif block with a few other entries, `order` as of `struct`."""
    value = struct.pack(order + "I", orientation) if long else struct.pack(order + "HH", orientation, 0)
    entries = [
        struct.pack(order + "HHI4s", 0x0100, 4, 1, struct.pack(order + "I", 640)),
        struct.pack(order + "HHI4s", ORIENTATION, 4 if long else 3, 1, value),
        struct.pack(order + "HHI4s", 0x0128, 3, 1, struct.pack(order + "HH", 2, 0)),
    ]
    begin = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return b"Exif\0\0" + begin + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)


def turned(pixels, orientation):
    """What Pillow makes of an array whose Exif says this."""
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def png_file(pixels, chunks_before=b"", chunks_behind=b""):
    """A PNG of uint8 or uint16 [H, W, C], C = 1 grey, 2 with alpha, 3 colour, 4 with alpha."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    content = png_chunk(b"IHDR", header) + chunks_before + png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + content + chunks_behind + png_chunk(b"IEND", b"")


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _pngs():
    rgb = colours()
    image = Image.fromarray(rgb)
    grey = np.asarray(image.convert("L"))
    rng = np.random.default_rng(1)
    alpha = rng.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)
    deep = rng.integers(0, 65536, (HEIGHT, WIDTH, 4), np.uint16)
    found = {
        "png colour": (_encoded(image, "PNG"), rgb),
        "png grey": (_encoded(image.convert("L"), "PNG"), _three(grey)),
        "png of 1 bit": (_encoded(image.convert("1"), "PNG"), np.asarray(image.convert("1").convert("RGB"))),
        "png colour and alpha": (png_file(np.concatenate([rgb, alpha], -1)), rgb),
        "png grey and alpha": (png_file(np.concatenate([grey[..., None], alpha], -1)), _three(grey)),
        "png grey of 16 bits": (png_file(deep[..., :1]), _three(scaled(deep[..., 0]))),
        "png colour of 16 bits": (png_file(deep[..., :3]), scaled(deep[..., :3])),
        "png grey and alpha of 16 bits": (png_file(deep[..., 2:]), _three(scaled(deep[..., 2]))),
        "png colour and alpha of 16 bits": (png_file(deep), scaled(deep[..., :3])),
        "png of one pixel": (png_file(rgb[:1, :1]), rgb[:1, :1]),
        "png under the name of a jpeg": (_encoded(image, "PNG"), rgb),
    }
    for count in (2, 4, 16, 200):
        palette = image.quantize(count)
        found[f"png palette of {count}"] = (_encoded(palette, "PNG"), np.asarray(palette.convert("RGB")))
    clear = _encoded(image.quantize(16), "PNG", transparency=3)
    found["png palette with a transparent colour"] = (clear, np.asarray(image.quantize(16).convert("RGB")))
    for orientation in (3, 6, 8):
        chunk = png_chunk(b"eXIf", exif(orientation, ">")[6:])
        found[f"png turned {orientation}"] = (png_file(rgb, chunk), turned(rgb, orientation))
    behind = png_chunk(b"eXIf", exif(5, "<")[6:])
    prefixed = png_chunk(b"eXIf", exif(8, "<"))
    found["png turned, with JPEG's prefix before Exif"] = (png_file(rgb, prefixed), turned(rgb, 8))
    again = png_chunk(b"eXIf", exif(6, ">")[6:])
    found["png turned, said twice"] = (png_file(rgb, prefixed, again), turned(rgb, 6))
    found["png with Exif behind its end"] = (png_file(rgb) + again, rgb)
    found["png turned, said behind the pixels"] = (png_file(rgb, b"", behind), turned(rgb, 5))
    found["png that only mentions eXIf"] = (png_file(rgb, png_chunk(b"tEXt", b"Comment\0no eXIf here")), rgb)
    turned_deep = png_file(deep[..., :3], png_chunk(b"eXIf", exif(7)[6:]))
    found["png of 16 bits turned"] = (turned_deep, turned(scaled(deep[..., :3]), 7))
    return found


def _bmps():
    rgb = colours()
    image = Image.fromarray(rgb)
    grey = np.asarray(image.convert("L"))
    rng = np.random.default_rng(2)
    transparent = np.concatenate([rgb, rng.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)], -1)
    found = {
        "bmp colour": (_encoded(image, "BMP"), rgb),
        "bmp colour and alpha": (_encoded(Image.fromarray(transparent), "BMP"), rgb),
        "bmp grey": (_encoded(image.convert("L"), "BMP"), _three(grey)),
        "bmp palette of 200": (_encoded(image.quantize(200), "BMP"), np.asarray(image.quantize(200).convert("RGB"))),
        "bmp of 1 bit": (_encoded(image.convert("1"), "BMP"), np.asarray(image.convert("1").convert("RGB"))),
        "bmp from the top": (_bmp_file(24, rgb[..., ::-1], top=True), rgb),
        "bmp without its last padding": (_encoded(image, "BMP")[:-2], rgb),
        "bmp of one pixel": (_bmp_file(24, rgb[:1, :1, ::-1]), rgb[:1, :1]),
        "bmp red last": (_bmp_masks(transparent, (0xFF000000, 0xFF0000, 0xFF00)), rgb),
    }
    for bits in (1, 4, 8):
        palette = rng.integers(0, 256, (2**bits, 3), np.uint8)
        numbers = rng.integers(0, 2**bits, (HEIGHT, WIDTH), np.uint8)
        found[f"bmp palette of {bits} bits"] = (_bmp_file(bits, numbers, palette), palette[numbers])
    palette, numbers = rng.integers(0, 256, (10, 3), np.uint8), rng.integers(0, 10, (HEIGHT, WIDTH), np.uint8)
    found["bmp palette of ten colours"] = (_bmp_file(8, numbers, palette), palette[numbers])
    # Pillow takes these for 1 and for 8 bits.
    ink = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)
    for bits in (4, 8):
        found[f"bmp of black and white in {bits} bits"] = (_bmp_file(bits, numbers % 2, ink), ink[numbers % 2])
    ramp = np.repeat(np.arange(16, dtype=np.uint8)[:, None], 3, axis=1)
    found["bmp of near black in 4 bits"] = (_bmp_file(4, numbers, ramp), ramp[numbers])
    return found


def scaled(deep):
    """uint16 -> uint8: v / 257, rounded, in whole numbers."""
    return ((deep.astype(np.int64) * 2 + 257) // 514).astype(np.uint8)


def _bmp_file(bits, values, palette=None, top=False):
    """A BMP of colour numbers uint8 [H, W] with a palette uint8 [n, 3], or of uint8 [H, W, 3], blue first."""
    height, width = values.shape[:2]
    if bits < 8:
        fields = [values[:, place :: 8 // bits] for place in range(8 // bits)]
        fields = [np.pad(field, ((0, 0), (0, fields[0].shape[1] - field.shape[1]))) for field in fields]
        values = sum(field << (8 - bits * (place + 1)) for place, field in enumerate(fields))
    rows = values.reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    colours = b"" if palette is None else np.pad(palette[:, ::-1], ((0, 0), (0, 1))).astype(np.uint8).tobytes()
    used = 0 if palette is None else len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, -height if top else height, 1, bits, 0, 0, 0, 0, used, 0)
    start = 14 + len(info) + len(colours)
    body = (rows if top else rows[::-1]).tobytes()
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + colours + body


def _contradictory_bmps():
    """name -> (bytes, words): each a whole BMP with a field or two of its headers changed."""
    rng = np.random.default_rng(3)
    palette, numbers = rng.integers(0, 256, (16, 3), np.uint8), rng.integers(0, 4, (HEIGHT, WIDTH), np.uint8)
    indexed, plain = _bmp_file(4, numbers, palette), _bmp_file(24, colours()[..., ::-1])
    rgba = np.concatenate([colours(), rng.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)], -1)
    masked = _bmp_masks(rgba, (0xFF0000, 0xFF00, 0xFF))
    begins = "its pixels begin at byte"

    def changed(content, **fields):
        data = bytearray(content)
        for name, value in fields.items():
            at, form = BMP_FIELDS[name]
            struct.pack_into("<" + form, data, at, value)
        return bytes(data)

    return {
        "bmp whose pixels begin in its palette": (changed(indexed, pixels_at=54 + 8), f"{begins} 62, but .* 118 bytes"),
        "bmp whose pixels begin behind its header": (changed(indexed, pixels_at=54), f"{begins} 54"),
        "bmp whose pixels begin in its header": (changed(plain, pixels_at=20), f"{begins} 20, but .* 54 bytes"),
        "bmp whose pixels begin nowhere": (changed(plain, pixels_at=0), f"{begins} 0"),
        "bmp whose pixels begin in its masks": (changed(masked, header=40, pixels_at=54), f"{begins} 54, but .* 66"),
        "bmp whose header is longer than its pixels allow": (changed(plain, header=124), f"{begins} 54, but .* 138"),
        "bmp whose pixels begin behind its end": (changed(plain, pixels_at=10**6), "truncated BMP image"),
        "bmp with more colours than numbers": (changed(indexed, colours=17), "palette of 17 colours .* 4 bits"),
        "bmp with 2^32 - 1 colours": (changed(indexed, colours=2**32 - 1), "palette of 4294967295 colours"),
        "bmp of 4 bits that says 8": (changed(indexed, bits=8), "truncated BMP image"),
        "bmp of 24 bits that says 32": (changed(plain, bits=32), "truncated BMP image"),
        "bmp of 24 bits that says 4": (changed(plain, bits=4), begins),
        "bmp of two planes": (changed(plain, planes=2), "says 2 colour planes, expected 1"),
        "bmp of no plane": (changed(plain, planes=0), "says 0 colour planes, expected 1"),
        "bmp of too few bytes of pixels": (
            changed(plain, pixel_bytes=HEIGHT * WIDTH),
            "says 1850 bytes of pixels, its width, height and bits ask for 5622",
        ),
        "bmp with one mask twice": (changed(masked, red=0xFF), "colour masks"),
        "bmp with alpha over a colour": (changed(masked, alpha=0xFF00), "colour masks"),
        "bmp without masks": (changed(masked, red=0, green=0, blue=0), "colour masks"),
        "bmp of 24 bits with masks": (changed(masked, bits=24), "colour masks"),
    }


BMP_FIELDS = {
    "pixels_at": (10, "I"),
    "header": (14, "I"),
    "planes": (26, "H"),
    "bits": (28, "H"),
    "pixel_bytes": (34, "I"),
    "colours": (46, "I"),
    "red": (54, "I"),
    "green": (58, "I"),
    "blue": (62, "I"),
    "alpha": (66, "I"),
}


def _bmp_masks(rgba, masks):
    """A BMP of 32 bits whose red, green and blue lie where the masks say."""
    height, width = rgba.shape[:2]
    packed = np.zeros((height, width), np.uint32)
    for channel, mask in enumerate(masks):
        packed |= rgba[..., channel].astype(np.uint32) << ((mask & -mask).bit_length() - 1)
    info = struct.pack("<IiiHHIIiiII", 56, width, height, 1, 32, 3, 0, 0, 0, 0, 0) + struct.pack("<IIII", *masks, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(info)) + info + packed[::-1].astype("<u4").tobytes()


def _strange_jpegs(jpeg):
    """name -> (bytes, words): files whose frame says that they are of another kind; what follows does not matter."""
    frame = jpeg.index(b"\xff\xc0")
    kinds = {
        "of 12 bits": (0xC1, 12, "a JPEG image of 12 bits a colour, which is not supported; save it as PNG"),
        "of 12 bits, progressive": (0xC2, 12, "of 12 bits a colour"),
        "of 16 bits, lossless": (0xC3, 16, "a JPEG image with lossless coding"),
        "lossless": (0xC3, 8, "a JPEG image with lossless coding"),
        "of several resolutions": (0xC5, 8, "of several resolutions"),
        "of JPEG-LS": (0xF7, 8, "of the kind JPEG-LS"),
    }
    found = {}
    for name, (marker, bits, words) in kinds.items():
        content = bytearray(jpeg)
        content[frame + 1], content[frame + 4] = marker, bits
        found[f"jpeg {name}"] = (bytes(content), words)
    content, words = found["jpeg of 12 bits"]
    found["jpeg of 12 bits with Exif"] = (content[:2] + _segment(0xE1, exif(6)) + content[2:], words)
    profile = _segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000))
    found["jpeg of 12 bits with a profile"] = (content[:2] + profile + content[2:], words)
    return found


def _jpeg_of(jpeg, width, height):
    """The same bytes with another size in the header."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def _segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def _encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _three(grey):
    return np.repeat(grey[..., None], 3, axis=-1)
