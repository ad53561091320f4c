"""Seeded random feeds that a model can digest, told by its inputs' types and names."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from autoglm.errors import InputError
from autoglm.spec import TensorInfo, Value
from autoglm.tensor.dtype import bits, dtype, to_numpy

_WORDS = ("alpha", "beta", "gamma", "delta", "你好", "")
_TOKENS = 16  # ids below this are in any vocabulary
_SEQUENCE = 2
_MAX_ELEMENTS = 1 << 31


def random_feeds(
    infos: Sequence[TensorInfo], seed: int = 0, dims: Mapping[str, int] | None = None
) -> dict[str, Value]:
    """One value for each input, the same for the same seed and name.

    Symbolic dimensions are 1 unless `dims` gives a size. Names that speak of a mask get ones, of
    positions 0, 1, 2, …, of token types zeros; whole numbers stay small enough to be indices.
    An optional input is left absent.
    """
    sizes = dict(dims or {})
    known = {d for info in infos for d in info.shape or () if isinstance(d, str)}
    if unknown := sorted(set(sizes) - known):
        raise InputError(
            "No input has a dimension {name!r}; symbolic ones: {known}.",
            name=unknown[0],
            known=", ".join(sorted(known)) or "none",
        )
    return {info.name: _value(info, seed, sizes) for info in infos}


def _value(info: TensorInfo, seed: int, sizes: Mapping[str, int]) -> Value:
    if info.kind == "optional":
        return None
    random = np.random.default_rng([seed, zlib.crc32(info.name.encode())])
    shape = tuple(d if isinstance(d, int) else sizes.get(str(d), 1) for d in info.shape or ())
    count = 1
    for size in shape:
        count *= size
    if count > _MAX_ELEMENTS or any(size < 0 for size in shape):
        raise InputError(
            "Input {name!r} of shape {shape} is too large for random data.",
            hint="Give a smaller size with --dim NAME=SIZE, or a file with --inputs.",
            name=info.name,
            shape=list(shape),
        )
    if info.kind == "sequence":
        return [_tensor(info, shape, random) for _ in range(_SEQUENCE)]
    return _tensor(info, shape, random)


def _tensor(info: TensorInfo, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    kind = dtype(info.dtype).kind
    held = to_numpy(info.dtype)
    if kind == "string":
        return np.array(random.choice(_WORDS, shape), dtype=object)
    if "mask" in info.name.lower() and kind != "complex":
        return np.ones(shape, np.float32).astype(held)
    if kind == "bool":
        return random.integers(0, 2, shape).astype(held)
    if kind in ("int", "uint"):
        return _whole(info, shape, random).astype(held)
    if kind == "complex":
        return (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(held)
    numbers = np.asarray(random.standard_normal(shape))
    if info.dtype == "float8_e8m0fnu":  # powers of two only
        numbers = np.exp2(np.round(numbers))
    return (
        numbers.astype(np.float32).astype(held) if bits(info.dtype) < 32 else numbers.astype(held)
    )


def _whole(info: TensorInfo, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    name = info.name.lower()
    if bits(info.dtype) <= 8:  # pixels and quantised values: the whole range
        width = bits(info.dtype)
        low = -(1 << (width - 1)) if dtype(info.dtype).kind == "int" else 0
        return np.asarray(random.integers(low, low + (1 << width), shape))
    if "position" in name and shape:
        return np.broadcast_to(np.arange(shape[-1]), shape)
    if "token_type" in name or "segment" in name:
        return np.zeros(shape, np.int64)
    if not shape or "len" in name:
        return np.ones(shape, np.int64)
    return np.asarray(random.integers(0, _TOKENS if "id" in name or "tok" in name else 4, shape))
