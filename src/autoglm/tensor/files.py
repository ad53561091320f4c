"""Files that are there whole or not at all: a temporary sibling, synced, then renamed."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from autoglm.errors import FileMissingError, LimitError, ModelError, WriteError

CHUNK = 1 << 20
_TEMPORARY = re.compile(
    r"^\..+\.(?P<host>[0-9a-f]{8})\.(?P<pid>\d+)\.(?P<start>\d+)\.[0-9a-f]{8}\.tmp$"
)
_AT_FDCWD, _EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_FOREIGN_AGE_S = 7 * 86400  # a temporary of another machine is dead when this old
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def atomic_write(path: str | Path, data: bytes | bytearray | memoryview | str) -> Path:
    """Write `data` (text as UTF-8); readers of `path` see the old file or the whole new one."""
    with atomic_file(path) as temporary, temporary.open("wb") as sink:
        sink.write(data.encode("utf-8") if isinstance(data, str) else data)
    return Path(path)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling to write: synced and renamed on success, deleted otherwise."""
    target = Path(path)
    with _guard(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        clean_stale(target.parent)
        temporary = temporary_name(target)
        try:
            yield temporary
            _sync_file(temporary)
            temporary.replace(target)
            sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty temporary sibling folder: synced and renamed on success, deleted otherwise.

    An existing non-empty `path` is refused unless `replace`; then the two change names in one step.
    """
    target = Path(path)
    with _guard(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        clean_stale(target.parent)
        if not replace:
            _refuse_existing(target)
        temporary = temporary_name(target)
        try:
            temporary.mkdir()
            yield temporary
            sync_tree(temporary)
            _swap_in(temporary, target, replace)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def copy_tree(source: Path, target: Path) -> None:
    """Copy the regular files below `source` to the new folder `target`; a link is refused."""
    target.mkdir(parents=True)
    for entry in sorted(os.scandir(source), key=lambda e: e.name):
        place = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            copy_tree(Path(entry.path), place)
        elif entry.is_file(follow_symlinks=False):
            shutil.copyfile(entry.path, place)
        else:
            raise WriteError("{path} is not a regular file, so it is not copied.", path=entry.path)


def sync_tree(folder: Path) -> None:
    """fsync every file and folder below `folder`, and `folder` itself."""
    for root, _, names in os.walk(folder):
        for name in names:
            _sync_file(Path(root) / name)
        sync_folder(Path(root))


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that names in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file, read in chunks of 1 MiB; FileMissingError where it is not there."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
    except FileNotFoundError as error:
        raise FileMissingError("File {path} is not there.", path=str(path)) from error
    return digest.hexdigest()


def read_json(path: Path, most_bytes: int) -> Any:
    """The value of a model's JSON file; ModelError where it is none, LimitError where too large."""
    try:
        if path.stat().st_size > most_bytes:
            raise LimitError("{path} is larger than {limit} bytes.", path=path, limit=most_bytes)
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileMissingError("{path} does not exist.", path=path) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            "{path} is not valid JSON: {reason}.",
            hint="Download the file again; a git-LFS pointer or web page looks like this.",
            path=path,
            reason=str(error)[:200],
        ) from error


def clean_stale(folder: Path) -> int:
    """Delete temporaries that processes of this machine left behind when they died; how many."""
    count = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.match(entry.name)
            if match is None or _in_use(entry, match):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):  # another process cleans at the same time
                    os.unlink(entry.path)
            count += 1
    return count


def write_error(target: str | Path, error: OSError) -> WriteError:
    """The WriteError for `error` while writing `target`."""
    hint = "Choose a folder that you may write to."
    if error.errno in _NO_SPACE:
        hint = "Free some space there (or raise the file size limit), or write to another disk."
    return WriteError(
        "Cannot write {path}: {reason}; nothing was left behind.",
        hint=hint,
        path=str(target),
        reason=os.strerror(error.errno) if error.errno else str(error),
    )


@contextmanager
def _guard(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not _is_below(error.filename, target) and error.errno not in _NO_SPACE:
            raise  # some other file's trouble, met while the caller was writing
        raise write_error(target, error) from error


def _is_below(name: object, target: Path) -> bool:
    """Whether an OSError's file lies where we write; one without a name is from our own writing."""
    if name is None:
        return True
    if not isinstance(name, str | os.PathLike):
        return False
    parent = os.path.abspath(target.parent)
    found = os.path.abspath(name)
    return (
        found == parent
        or found.startswith(parent.rstrip("/") + "/")
        or parent.startswith(found.rstrip("/") + "/")
    )


def _refuse_existing(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WriteError(
            "{path} exists and is not an empty folder.",
            hint="Name another folder, or remove this one first.",
            path=str(target),
        )


def _swap_in(temporary: Path, target: Path, replace: bool) -> None:
    if not replace:
        _refuse_existing(target)
    if not replace or not target.is_dir() or target.is_symlink():
        temporary.rename(target)
        return
    if _exchange(temporary, target):  # the old folder now has the temporary name, and goes with it
        return
    aside = temporary_name(target)
    target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step (Linux renameat2); False where that cannot be done."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(
        rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _EXCHANGE) == 0
    )


def temporary_name(target: Path) -> Path:
    """A sibling name for `target` that `clean_stale` removes once this process is gone."""
    pid = os.getpid()
    stem = target.name.lstrip(".")[:100] or "out"
    return target.parent / f".{stem}.{_host()}.{pid}.{_start(pid)}.{uuid.uuid4().hex[:8]}.tmp"


def _host() -> str:
    """Names the machine and the process-id namespace, for pids mean nothing outside theirs."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def _in_use(entry: os.DirEntry[str], match: re.Match[str]) -> bool:
    if match["host"] == _host():
        return _alive(int(match["pid"]), match["start"])
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime < _FOREIGN_AGE_S
    except OSError:
        return True


def _start(pid: int) -> str:
    """Start time of a process in clock ticks since boot: with its pid it names a process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "0"
    return text.rpartition(")")[2].split()[19]


def _alive(pid: int, start: str) -> bool:
    if start != "0" and Path("/proc/self/stat").exists():
        return _start(pid) == start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
