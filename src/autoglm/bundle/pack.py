"""A bundle as one file: an uncompressed zip, its members aligned, unpacked with bounds."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import IO

from autoglm.bundle.hashes import listing, safe_path
from autoglm.bundle.manifest import MANIFEST, read_bundle, verify
from autoglm.errors import BundleError, FileMissingError, LimitError
from autoglm.tensor.files import CHUNK, atomic_file, atomic_folder

ALIGNMENT = 4096
MAX_BYTES = 1 << 40
_MAX_FILES = 100_000
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bundle gives the same file
_PADDING = 0xD935  # the extra field that Android's zipalign uses for the same purpose


def pack(folder: Path, target: Path) -> Path:
    """Write the bundle at `folder`, checked first, as the one file `target`."""
    read_bundle(folder)
    with atomic_file(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        # The manifest comes first, so that a reader of the stream knows what follows.
        for name in sorted(listing(folder), key=lambda n: (n != MANIFEST, n)):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.file_size = (folder / name).stat().st_size
            assert archive.fp is not None
            info.extra = _padding(archive.fp.tell(), info)
            with (
                archive.open(info, "w", force_zip64=True) as sink,
                (folder / name).open("rb") as source,
            ):
                shutil.copyfileobj(source, sink, CHUNK)
    return target


def unpack(source: Path, folder: Path, *, max_bytes: int = MAX_BYTES) -> Path:
    """Write the bundle in `source` to the new `folder`, which appears once all hashes fit."""
    try:
        with zipfile.ZipFile(source) as archive, atomic_folder(folder) as place:
            _require_bounds(source, archive, max_bytes)
            for info in archive.infolist():
                target = safe_path(place, info.filename)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as member, target.open("xb") as sink:
                    _copy(member, sink, info.file_size)
            if wrong := verify(place):
                raise BundleError(
                    "The packed bundle {path} is damaged: {reason}.",
                    hint="Get it anew from where it came.",
                    path=str(source),
                    reason="; ".join(wrong[:5]),
                )
    except FileNotFoundError as error:
        raise FileMissingError("File {path} is not there.", path=str(source)) from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise BundleError(
            "{path} is not a packed bundle: {reason}.", path=str(source), reason=str(error)[:200]
        ) from error
    return folder


def _padding(offset: int, info: zipfile.ZipInfo) -> bytes:
    """An extra field that makes the member's data start on a page, so that it can be mapped."""
    head = (
        30 + len(info.filename.encode()) + 20 + 4
    )  # local header, name, zip64 field, our own head
    gap = -(offset + head) % ALIGNMENT
    return _PADDING.to_bytes(2, "little") + gap.to_bytes(2, "little") + bytes(gap)


def _require_bounds(source: Path, archive: zipfile.ZipFile, max_bytes: int) -> None:
    members = archive.infolist()
    total = sum(info.file_size for info in members)
    if total > max_bytes or len(members) > _MAX_FILES:
        raise LimitError(
            "{path} unpacks to {count} files of {total} bytes; at most {limit} are written.",
            path=str(source),
            count=len(members),
            total=total,
            limit=max_bytes,
        )
    if any(info.compress_type != zipfile.ZIP_STORED for info in members):
        raise BundleError("{path} is compressed; a packed bundle is not.", path=str(source))


def _copy(member: IO[bytes], sink: IO[bytes], size: int) -> None:
    while chunk := member.read(CHUNK):
        sink.write(chunk)
        size -= len(chunk)
    if size:
        raise EOFError("a member ends too early")
