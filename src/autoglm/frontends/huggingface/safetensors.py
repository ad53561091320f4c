"""Weights of a safetensors file as arrays over the mapped file; the header is checked first.

Format: 8 bytes little-endian header length, the header (JSON: name -> dtype, shape, data_offsets),
the data.
"""

from __future__ import annotations

import json
import mmap
import os
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from autoglm.errors import FileMissingError, ModelError
from autoglm.frontends import shown

Weights: TypeAlias = dict[str, Any]  # name -> numpy array

_MAX_HEADER_BYTES = 100_000_000  # the reference implementation's own limit
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_file(path: Path) -> Weights:
    """Every tensor of the file, mapped read-only."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.read(8)
            length = int.from_bytes(head, "little")
            if len(head) < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise _malformed(path, f"its header would take {length} of {size} bytes")
            header = _parse(path, stream.read(length))
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise FileMissingError(
            "{path} does not exist.", hint="The folder is incomplete.", path=path
        ) from error
    except OSError as error:
        raise ModelError(
            "{path} cannot be read: {reason}.", path=path, reason=str(error)
        ) from error
    _check_cover(path, header, size - 8 - length)
    return {name: _view(data, entry, 8 + length) for name, entry in header.items()}


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a key stands twice")
        return table

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"its header is not valid JSON ({str(error)[:100]})") from error
    if not isinstance(header, dict):
        raise _malformed(path, "its header is not a table")
    header.pop("__metadata__", None)
    for name, entry in header.items():
        _check_entry(path, name, entry)
    return header


def _check_entry(path: Path, name: str, entry: Any) -> None:
    fields = entry if isinstance(entry, dict) else {}
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    if not (_whole(shape) and _whole(offsets) and len(offsets) == 2):
        raise _malformed(path, f"tensor {shown(name)} has no whole shape and data_offsets")
    if fields.get("dtype") not in _DTYPES:
        raise _malformed(
            path,
            f"tensor {shown(name)} has dtype {shown(fields.get('dtype'))}; "
            f"known: {', '.join(_DTYPES)}",
        )
    if len(shape) > 64:
        raise _malformed(path, f"tensor {shown(name)} has {len(shape)} dimensions")
    need = prod(shape) * _numpy(fields["dtype"]).itemsize
    if offsets[1] - offsets[0] != need:
        raise _malformed(
            path,
            f"tensor {shown(name)} of shape {shape} needs {need} bytes, "
            f"its data_offsets span {offsets[1] - offsets[0]}",
        )


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _check_cover(path: Path, header: dict[str, Any], size: int) -> None:
    # The format forbids holes and overlaps, so the sorted spans tile the data exactly.
    end = 0
    spans = sorted((*entry["data_offsets"], name) for name, entry in header.items())
    for start, stop, name in spans:
        if start != end:
            what = "overlaps another" if start < end else "leaves a hole before it"
            raise _malformed(path, f"tensor {shown(name)} {what}")
        end = stop
    if end != size:
        raise _malformed(path, f"its tensors take {end} bytes and {size} are there")


def _numpy(dtype: str) -> np.dtype[Any]:
    from autoglm.tensor.dtype import to_numpy

    return to_numpy(_DTYPES[dtype])


def _view(data: mmap.mmap, entry: dict[str, Any], base: int) -> Any:
    count = prod(entry["shape"])
    kind = _numpy(entry["dtype"])
    if count == 0:
        return np.empty(entry["shape"], kind)
    start = base + entry["data_offsets"][0]
    return np.frombuffer(data, kind, count, start).reshape(entry["shape"])


def _malformed(path: Path, what: str) -> ModelError:
    return ModelError(
        "{path} is not a valid safetensors file: {what}.",
        hint="The file is truncated or damaged (or a git-LFS pointer): download it again.",
        path=path,
        what=what,
    )
