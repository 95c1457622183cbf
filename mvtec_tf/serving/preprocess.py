"""Makes of an image file the pixels that the model beside this file takes, with NumPy and Pillow alone."""

import io

import numpy as np
from PIL import Image, ImageOps


def preprocess(image_bytes: bytes, height: int, width: int, max_pixels: int) -> np.ndarray:
    """Encoded PNG, JPEG or BMP -> uint8 [1, height, width, 3], RGB, upright, as training and the SavedModel see it."""
    image = Image.open(io.BytesIO(image_bytes), formats=("PNG", "JPEG", "BMP"))
    if image.width * image.height > max_pixels:
        raise ValueError(f"its header says {image.width} x {image.height} pixels; at most {max_pixels} are decoded")
    image.load()
    # Only Exif says how to turn an image.
    image.info = {name: value for name, value in image.info.items() if name in ("exif", "transparency")}
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits
        pixels = np.rint(np.asarray(image, np.float32) / 257)[..., None].repeat(3, 2)
    else:
        pixels = np.asarray(image.convert("RGBA" if image.mode in ("P", "PA", "LA") else "RGB"), np.float32)[..., :3]
    pixels = _resized(_resized(pixels, 0, height), 1, width)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)[None]


def _resized(pixels: np.ndarray, axis: int, size: int) -> np.ndarray:
    """One axis of float32 [H, W, 3], bilinear and antialiased: weighted means of what lies under a triangle."""
    length, one = pixels.shape[axis], np.float32(1)
    scale = one / (np.float32(size) / np.float32(length))
    wide = max(scale, one)
    centre = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * scale
    first = np.maximum(np.ceil(centre - wide - np.float32(0.5)), 0).astype(int)
    last = np.minimum(np.floor(centre + wide - np.float32(0.5)), length - 1).astype(int)
    places = first[:, None] + np.arange((last - first).max() + 1)
    distance = np.abs((places.astype(np.float32) + np.float32(0.5) - centre[:, None]) * (one / wide))
    weights = np.where(places <= last[:, None], np.maximum(one - distance, 0), np.float32(0))
    weights = weights * (one / weights.sum(axis=1, keepdims=True))
    taken = np.minimum(places, length - 1)
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    return sum(weights[:, k].reshape(shape) * pixels.take(taken[:, k], axis) for k in range(places.shape[1]))
