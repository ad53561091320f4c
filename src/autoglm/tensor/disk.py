"""Arrays on disk: .npz, .npy, .json, raw binary, or a folder of these; `keys` has the grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from autoglm.errors import FileMissingError, InputError, LimitError, WriteError
from autoglm.spec import TensorInfo, Value
from autoglm.tensor.dtype import DTYPES, from_numpy, is_native, to_numpy
from autoglm.tensor.files import atomic_file
from autoglm.tensor.json_arrays import from_json, to_json
from autoglm.tensor.keys import RAW, TEXT, flatten, gather, split, tensor
from autoglm.tensor.npy import MAX_BYTES, read_npy, read_npz, write_npy, write_npz
from autoglm.tensor.sample import random_feeds

__all__ = ["load_arrays", "random_feeds", "save_arrays"]

_RAW_ENDINGS = (".bin", ".raw")
_ENDINGS = (".npz", ".npy", ".json", *_RAW_ENDINGS)


def load_arrays(
    path: str | Path,
    inputs: Sequence[TensorInfo] = (),
    *,
    raw: str = "",
    max_bytes: int = MAX_BYTES,
) -> dict[str, Value]:
    """Values by name from a file, or from every such file of a folder.

    `inputs` gives names and dtypes where a format has none (.npy, .json, raw). A raw file takes
    `raw="name:dtype:1x3x8x8"`, or the same behind its name (`x.bin:name:dtype:1x3x8x8`).
    """
    place, spec = _split_path(str(path), raw)
    if not place.exists():
        raise FileMissingError("No such file or folder: {path}.", path=str(place))
    try:
        if place.is_dir():
            return _folder(place, inputs, max_bytes)
        return _file(place, inputs, spec, max_bytes)
    except OSError as error:
        raise InputError(
            "{path} cannot be read: {reason}.", path=str(place), reason=error.strerror or str(error)
        ) from error
    except MemoryError as error:
        raise LimitError("There is no memory to load {path}.", path=str(place)) from error


def save_arrays(path: str | Path, values: Mapping[str, Value]) -> Path:
    """Write values by name, as the ending says: .npz and .json take all, others one tensor."""
    target = Path(path)
    ending = target.suffix.lower()
    if ending not in _ENDINGS:
        raise WriteError(
            "Cannot tell how to write {path}: its name must end in one of {known}.",
            path=str(target),
            known=", ".join(_ENDINGS),
        )
    with atomic_file(target) as temporary:
        if ending == ".npz":
            write_npz(temporary, flatten(values))
        elif ending == ".json":
            document = {name: to_json(value) for name, value in values.items()}
            temporary.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        else:
            _write_one(temporary, target, values)
    return target


def _split_path(path: str, raw: str) -> tuple[Path, str]:
    """A path, and the raw specification behind it."""
    place = Path(path)
    match = re.fullmatch(r"(.+?\.(?:bin|raw)):(.+)", path)
    if raw or match is None or place.exists():
        return place, raw
    return Path(match[1]), match[2]


def _folder(place: Path, inputs: Sequence[TensorInfo], max_bytes: int) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for file in sorted(place.iterdir()):
        if file.suffix.lower() not in _ENDINGS or not file.is_file():
            continue
        named = [i for i in inputs if i.name == file.stem]
        for name, value in _file(file, named, "", max_bytes).items():
            if name in values:
                raise InputError("{path} gives {name!r} twice.", path=str(place), name=name)
            values[name] = value
    if not values:
        raise InputError(
            "{path} holds no arrays; they are files that end in {known}.",
            path=str(place),
            known=", ".join(_ENDINGS),
        )
    return values


def _file(place: Path, inputs: Sequence[TensorInfo], raw: str, max_bytes: int) -> dict[str, Value]:
    ending = place.suffix.lower()
    if raw or ending in _RAW_ENDINGS:
        return _load_raw(place, inputs, raw)
    if ending == ".npz":
        return gather(read_npz(place, max_bytes), {i.name: i.dtype for i in inputs})
    if ending == ".npy":
        return _load_npy(place, inputs, max_bytes)
    if ending == ".json":
        return _load_json(place, inputs)
    raise InputError(
        "{path} is of no known kind; arrays are files that end in {known}.",
        path=str(place),
        known=", ".join(_ENDINGS),
    )


def _load_npy(place: Path, inputs: Sequence[TensorInfo], max_bytes: int) -> dict[str, Value]:
    array = read_npy(place, max_bytes)
    only = inputs[0] if len(inputs) == 1 else None
    if only is not None:
        ending = place.stem.rpartition("@")[2]
        suffix = ending if "@" in place.stem and ending in (TEXT, *RAW) else ""
        return {only.name: tensor(place.name, suffix, array, only.dtype)}
    name, suffixes = split(place.stem)
    if len(suffixes) > 1 or not {*suffixes} <= {TEXT, *RAW}:
        raise InputError(
            "{path}: a .npy file holds one tensor; its name takes one of {known}.",
            path=str(place),
            known=", ".join(f"@{s}" for s in (TEXT, *RAW)),
        )
    return {name: tensor(place.name, suffixes[0] if suffixes else "", array)}


def _load_json(place: Path, inputs: Sequence[TensorInfo]) -> dict[str, Value]:
    try:
        document = json.loads(place.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(
            "{path} is not JSON: {reason}.", path=str(place), reason=str(error)[:200]
        ) from error
    if not isinstance(document, dict):
        if len(inputs) != 1:
            raise InputError(
                "{path} must be an object that maps input names to arrays; found {found}.",
                path=str(place),
                found=type(document).__name__,
            )
        document = {inputs[0].name: document}
    dtypes = {i.name: i.dtype for i in inputs}
    return {name: from_json(name, data, dtypes.get(name, "")) for name, data in document.items()}


def _load_raw(place: Path, inputs: Sequence[TensorInfo], raw: str) -> dict[str, Value]:
    name, dtype, shape = _parse_raw(place, raw) if raw else _only_static(place, inputs)
    row = DTYPES.get(dtype)
    if row is None or dtype == "string":
        raise InputError(
            "{path}: {dtype!r} cannot be read from raw bytes; known: {known}.",
            path=str(place),
            dtype=dtype,
            known=", ".join(sorted(set(DTYPES) - {"string"})),
        )
    expected = int(np.prod(shape, dtype=object)) * row.numpy.itemsize
    found = place.stat().st_size
    if expected != found:
        raise InputError(
            "{path} must hold {expected} bytes ({dtype} {shape}); found {found}.",
            path=str(place),
            expected=expected,
            dtype=dtype,
            shape=list(shape),
            found=found,
        )
    data = np.fromfile(place, np.uint8)
    if dtype in RAW:
        bits = data.view(np.uint16) if row.numpy.itemsize == 2 else data
        return {name: tensor(str(place), dtype, bits.reshape(shape))}
    return {name: data.view(to_numpy(dtype)).reshape(shape)}


def _parse_raw(place: Path, raw: str) -> tuple[str, str, tuple[int, ...]]:
    parts = raw.rsplit(":", 2)
    sizes = [s for s in parts[-1].replace(",", "x").split("x") if s]
    if len(parts) != 3 or not all(s.isascii() and s.isdigit() for s in sizes):
        raise InputError(
            "{path}: {raw!r} does not say name:dtype:shape.",
            hint="As in image:float32:1x3x224x224; the shape of a single number is empty.",
            path=str(place),
            raw=raw,
        )
    return parts[0], parts[1], tuple(map(int, sizes))


def _only_static(place: Path, inputs: Sequence[TensorInfo]) -> tuple[str, str, tuple[int, ...]]:
    info = inputs[0] if len(inputs) == 1 else None
    shape = info.shape if info else None
    if info is None or shape is None or any(not isinstance(d, int) for d in shape):
        raise InputError(
            "{path} is raw: say what it holds as {path}:name:dtype:shape.",
            hint="As in x.bin:image:float32:1x3x224x224.",
            path=str(place),
        )
    return info.name, info.dtype, tuple(d for d in shape if isinstance(d, int))


def _write_one(temporary: Path, target: Path, values: Mapping[str, Value]) -> None:
    value = next(iter(values.values())) if len(values) == 1 else None
    if value is None or isinstance(value, list | tuple):
        raise InputError(
            "{path} holds one tensor; there are {count} values to write.",
            hint="Write to a .npz file, which takes sequences and any number of values.",
            path=str(target),
            count=len(values),
        )
    array = np.asarray(value)
    raw = target.suffix.lower() in _RAW_ENDINGS
    name = from_numpy(array.dtype)
    if name == "string" or not (raw or is_native(name)):
        raise InputError(
            "{path} cannot hold {dtype}.",
            hint="Write to a .npz file, which takes every dtype.",
            path=str(target),
            dtype=name,
        )
    if raw:
        temporary.write_bytes(array.tobytes())
    else:
        write_npy(temporary, array)
