"""Decoding of image files, by Pillow where it is installed."""

from __future__ import annotations

import io
import warnings

import numpy as np

from autoglm.backends.numpy.op import Array, Op, Table
from autoglm.rewrite.program import Call

_MODES = {"RGB": "RGB", "BGR": "RGB", "Grayscale": "L"}
# A small file can claim an enormous picture; 2^28 pixels are far beyond a camera's.
_PIXELS = 1 << 28


def decode(call: Call, stream: Array) -> Array:
    """Height, width, channels; an empty array where the bytes are no image."""
    from PIL import Image, UnidentifiedImageError

    channels = 1 if call["pixel_format"] == "Grayscale" else 3
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(np.ascontiguousarray(stream).tobytes()))
        if picture.width * picture.height > _PIXELS:
            raise ValueError(f"an image of {picture.width} x {picture.height} is beyond the limit")
        pixels = np.array(picture.convert(_MODES[call["pixel_format"]]))
    except (UnidentifiedImageError, OSError, SyntaxError):
        return np.zeros((0, 0, channels), np.uint8)
    pixels = pixels.reshape(picture.height, picture.width, channels)
    return pixels[:, :, ::-1] if call["pixel_format"] == "BGR" else pixels


def check_pillow(call: Call) -> str:
    """Pillow is not one of our own dependencies."""
    from importlib.util import find_spec

    if call.attributes.get("pixel_format") not in _MODES:
        return f"pixel_format is {', '.join(_MODES)}; found {call['pixel_format']!r}"
    return "" if find_spec("PIL") else "Pillow is not installed (pip install Pillow)"


TABLE: Table = {"ImageDecoder": Op(decode, check_pillow)}
