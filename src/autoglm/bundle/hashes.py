"""Which files a folder holds, their sizes and hashes, and whether they are still those."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from autoglm.errors import AutoGLMError, BundleError
from autoglm.messages import tr
from autoglm.tensor.files import sha256_file


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a manifest says of one file."""

    size: int
    sha256: str


def fingerprint(folder: Path, skip: frozenset[str] = frozenset()) -> dict[str, FileFacts]:
    """Every file below `folder` by its path there, in order; a link or device is refused."""
    found: dict[str, FileFacts] = {}
    for path in listing(folder):
        place = folder / path
        if not stat.S_ISREG(place.lstat().st_mode):
            raise BundleError("{path} is not a regular file.", path=str(place))
        if path not in skip:
            found[path] = FileFacts(place.stat().st_size, sha256_file(place))
    return found


def listing(folder: Path) -> list[str]:
    """Everything below `folder` that is not a folder, as sorted relative paths."""
    names: list[str] = []
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        names += [(Path(root) / name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(names)


def problems(
    folder: Path,
    files: Mapping[str, FileFacts],
    *,
    hashed: bool = True,
    skip: frozenset[str] = frozenset(),
) -> list[str]:
    """What is missing, changed or not listed, a sentence each; not `hashed`: sizes only."""
    found = [
        p for p in (_problem(folder, name, facts, hashed) for name, facts in files.items()) if p
    ]
    strangers = sorted(set(listing(folder)) - set(files) - skip)
    return found + [tr("{file} is not in the manifest", file=name) for name in strangers]


def safe_path(folder: Path, name: str) -> Path:
    """`folder/name`; BundleError where that would leave the folder or pass through a link."""
    pure = PurePosixPath(name)
    parts = name.split("/")
    if pure.is_absolute() or "\\" in name or "\0" in name or {"", ".", ".."} & set(parts):
        raise BundleError(
            "{name!r} is not a path inside a bundle.",
            hint="The bundle was tampered with; get it anew from its source.",
            name=name[:200],
        )
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise BundleError(
                "{name!r} is a link; a bundle holds regular files only.",
                hint="Copy the bundle with its links resolved, or get it anew.",
                name=name[:200],
            )
    return path


def _problem(folder: Path, name: str, facts: FileFacts, hashed: bool) -> str:
    try:
        path = safe_path(folder, name)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return tr("{file} is not a regular file", file=name)
        if status.st_size != facts.size:
            return tr(
                "{file} has {found} bytes, {expected} were written",
                file=name,
                found=status.st_size,
                expected=facts.size,
            )
        if hashed and sha256_file(path) != facts.sha256:
            return tr("{file} has changed since it was written", file=name)
    except FileNotFoundError:
        return tr("{file} is missing", file=name)
    except OSError as error:
        return tr("{file} cannot be read: {reason}", file=name, reason=error.strerror or str(error))
    except AutoGLMError as error:
        return error.localized().rstrip(".")
    return ""
