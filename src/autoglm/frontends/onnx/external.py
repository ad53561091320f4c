"""Weights in files beside the model: never outside its folder, checked before anything is mapped.

A location is walked one component at a time with O_NOFOLLOW from a handle on the model's folder,
and the very file that passed the checks is the one that is mapped; no name is resolved twice.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.errors import AutoGLMError, FileMissingError, ModelError, ModelSecurityError
from autoglm.frontends import shown

if TYPE_CHECKING:
    import onnx

_KEYS = frozenset({"location", "offset", "length", "checksum"})
_STAY = "External data must be a plain file inside the model's folder."


@dataclass(frozen=True, slots=True)
class Region:
    """Where one tensor's bytes lie; `length` is None where the model does not say."""

    location: str
    offset: int
    length: int | None


class ExternalFiles:
    """The data files of one model; each is opened, checked and mapped once."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._mapped: dict[str, memoryview] = {}

    def read(self, region: Region, nbytes: int, tensor: str) -> memoryview:
        """The tensor's bytes, mapped; refuses what leaves the folder or does not fit the file."""
        if region.length is not None and region.length != nbytes:
            raise ModelError(
                "Tensor {tensor} needs {need} bytes, its external data declares {found}.",
                hint="The model file and its data file do not belong together, or are damaged.",
                tensor=shown(tensor),
                need=nbytes,
                found=region.length,
            )
        data = self._file(region.location, tensor)
        if region.offset + nbytes > len(data):
            raise ModelError(
                "Tensor {tensor} lies at bytes {start} to {end} of {location}, which has {size}.",
                hint="The data file is truncated or belongs to another model.",
                tensor=shown(tensor),
                start=region.offset,
                end=region.offset + nbytes,
                location=shown(region.location),
                size=len(data),
            )
        return data[region.offset : region.offset + nbytes]

    def _file(self, location: str, tensor: str) -> memoryview:
        parts = safe_parts(location, tensor)
        key = "/".join(parts)
        if key not in self._mapped:
            if self._folder is None:
                raise ModelError(
                    "Tensor {tensor} has its data in {location}, and this model has no folder.",
                    hint="Load the model from its path, or with its external data inside.",
                    tensor=shown(tensor),
                    location=shown(location),
                )
            self._mapped[key] = _open(self._folder, parts, tensor)
        return self._mapped[key]


def region_of(entries: Mapping[str, str] | list[tuple[str, str]], tensor: str) -> Region:
    """Read a tensor's `external_data` entries; unknown or repeated keys are refused."""
    pairs = list(entries.items()) if isinstance(entries, Mapping) else entries
    found = dict(pairs)
    strange = sorted(set(found) - _KEYS)
    if strange or len(found) != len(pairs):
        raise ModelSecurityError(
            "Tensor {tensor}: external data has {what}; known: {known}, once each.",
            tensor=shown(tensor),
            what=f"the key {shown(strange[0])}" if strange else "a key twice",
            known=", ".join(sorted(_KEYS)),
        )
    if "location" not in found:
        raise ModelError("Tensor {tensor}: external data names no location.", tensor=shown(tensor))
    length = found.get("length")
    return Region(
        found["location"],
        _number(found.get("offset", "0"), "offset", tensor),
        None if length is None else _number(length, "length", tensor),
    )


def regions(tensor: onnx.TensorProto) -> Region:
    """`region_of` for a TensorProto."""
    return region_of([(e.key, e.value) for e in tensor.external_data], tensor.name)


def safe_parts(location: str, tensor: str) -> list[str]:
    """The components of a relative location; refuses `..`, absolute paths and odd characters."""
    parts = [p for p in location.split("/") if p != "."]
    absolute = location.startswith("/") or location[1:3] in (":\\", ":/")
    if absolute or not parts or ".." in parts or "" in parts or set(location) & {"\\", "\0"}:
        raise ModelSecurityError(
            "Tensor {tensor} points outside the model's folder: external data at {location}.",
            hint=_STAY,
            tensor=shown(tensor),
            location=shown(location),
        )
    return parts


def _number(text: str, what: str, tensor: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ModelError(
            "Tensor {tensor}: external data {what} must be a whole number, found {found}.",
            tensor=shown(tensor),
            what=what,
            found=shown(text),
        )
    return int(text)


def _open(folder: Path, parts: list[str], tensor: str) -> memoryview:
    location = "/".join(parts)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for depth, part in enumerate(parts):
            inner = os.O_DIRECTORY if depth < len(parts) - 1 else 0
            try:
                following = os.open(part, flags | inner, dir_fd=handle)
            except OSError as error:
                raise _refused(error, location, tensor, _is_link(part, handle)) from error
            os.close(handle)
            handle = following
        return _map(handle, location, tensor)
    finally:
        os.close(handle)


def _is_link(part: str, handle: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(part, dir_fd=handle, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _refused(error: OSError, location: str, tensor: str, link: bool) -> AutoGLMError:
    if link or error.errno == errno.ELOOP:
        return ModelSecurityError(
            "Tensor {tensor}: external data {location} goes through a symbolic link.",
            hint=_STAY + " Copy the real files there (a Hugging Face cache holds links).",
            tensor=shown(tensor),
            location=shown(location),
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return FileMissingError(
            "Tensor {tensor}: external data file {location} is not beside the model.",
            hint="Copy the data file into the model's folder, under the same name.",
            tensor=shown(tensor),
            location=shown(location),
        )
    return ModelError(
        "Tensor {tensor}: external data file {location} cannot be read: {reason}.",
        tensor=shown(tensor),
        location=shown(location),
        reason=error.strerror,
    )


def _map(handle: int, location: str, tensor: str) -> memoryview:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        what = (
            f"has {status.st_nlink} hard links"
            if stat.S_ISREG(status.st_mode)
            else "is not a regular file"
        )
        raise ModelSecurityError(
            "Tensor {tensor}: external data {location} {what}.",
            hint=_STAY + " Copy it, so that it is nobody else's file.",
            tensor=shown(tensor),
            location=shown(location),
            what=what,
        )
    if status.st_size == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_READ))
