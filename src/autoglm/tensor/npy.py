"""NumPy's .npy and .npz, read with bounds: no pickle, no size that the file does not hold."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from autoglm.errors import InputError, LimitError

MAX_BYTES = 16 << 30
_MAX_MEMBERS = 100_000
# What NumPy's header parser may raise on text that is no header.
_UNREADABLE = (
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RecursionError,
    TokenError,
)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same arrays give the same file


def read_npy(path: Path, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array in a .npy file."""
    size = path.stat().st_size
    _require_room(str(path), size, max_bytes)
    with path.open("rb") as source:
        return _read(source, size, str(path))


def read_npz(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """The arrays in an .npz file by key; LimitError where it is too large."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _require_plain(path, members, max_bytes)
            return {m.filename.removesuffix(".npy"): _member(archive, m, path) for m in members}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputError(
            "{path} is not a readable .npz file: {reason}.", path=str(path), reason=str(error)
        ) from error


def write_npz(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write arrays by key, uncompressed, as they come."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for key, array in arrays:
            if "\0" in key:
                raise InputError("{key!r} holds a NUL character, which no .npz key can.", key=key)
            info = zipfile.ZipInfo(f"{key}.npy", _EPOCH)
            with archive.open(info, "w", force_zip64=True) as sink:
                npy.write_array(sink, array, allow_pickle=False)


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write one array."""
    with path.open("wb") as sink:
        npy.write_array(sink, array, allow_pickle=False)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    with archive.open(member) as source:
        return _read(source, member.file_size, f"{path}, {member.filename!r}")


def _require_plain(path: Path, members: list[zipfile.ZipInfo], max_bytes: int) -> None:
    counts = Counter(m.filename for m in members)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError("{path} holds {key!r} twice.", path=str(path), key=twice[0])
    if len(members) > _MAX_MEMBERS:
        raise LimitError(
            "{path} holds {found} arrays; at most {limit} are read.",
            path=str(path),
            found=len(members),
            limit=_MAX_MEMBERS,
        )
    for member in members:
        if not member.filename.endswith(".npy"):
            raise InputError(
                "{path} holds {name!r}, which is not an array.",
                path=str(path),
                name=member.filename[:200],
            )
    _require_room(str(path), sum(m.file_size for m in members), max_bytes)


def _require_room(where: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise LimitError(
            "{path} unpacks to {size} bytes; at most {limit} are read.",
            hint="Split the file, or check where it came from.",
            path=where,
            size=size,
            limit=max_bytes,
        )


def _read(source: IO[bytes], size: int, where: str) -> np.ndarray:
    try:
        shape, fortran, dtype = _header(source)
    except _UNREADABLE as error:
        raise InputError(
            "{where} is not a .npy array: {reason}.", where=where, reason=str(error)[:200]
        ) from error
    if dtype.hasobject:
        raise InputError(
            "{where} holds pickled Python objects, which are never loaded.",
            hint="Save text as a unicode array under the key NAME@str.",
            where=where,
        )
    if dtype.kind not in "biufcUSV" or dtype.names or dtype.subdtype:
        raise InputError("{where} holds {found}, not a tensor.", where=where, found=str(dtype)[:80])
    count = prod(shape)
    # The header's word is only taken where the file is that long: nothing is allocated on trust.
    if any(n < 0 for n in shape) or source.tell() + count * dtype.itemsize != size:
        raise InputError(
            "{where} declares {dtype} {shape}, which does not fit its {size} bytes.",
            where=where,
            dtype=dtype.name,
            shape=list(shape)[:16],
            size=size,
        )
    array = np.empty(count, dtype)
    _fill(source, array, where)
    array = array.astype(dtype.newbyteorder("="), copy=False)
    return array.reshape(shape[::-1]).transpose() if fortran else array.reshape(shape)


def _header(source: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(source)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format version {version} is not known")
    read: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(source)
    return tuple(int(n) for n in shape), bool(fortran), dtype


def _fill(source: IO[bytes], array: np.ndarray, where: str) -> None:
    if not array.nbytes:
        return
    view = array.view(np.uint8).data
    done = 0
    while done < len(view):
        got = source.readinto(view[done : done + (1 << 24)])  # type: ignore[attr-defined]
        if not got:
            raise InputError("{where} ends too early.", where=where)
        done += got
