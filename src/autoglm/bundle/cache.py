"""The compile cache: folders kept under the digest of everything that made them.

An entry is `<root>/<key>/`: `files/` as they were put, and `entry.json` with their hashes. It
appears by one rename, is hashed again before it is given out, and is taken away (by a rename too)
when a single byte differs. The least recently used go when the cache outgrows its bound.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from autoglm.bundle.codec import decode, encode
from autoglm.bundle.hashes import FileFacts, fingerprint, problems
from autoglm.errors import AutoGLMError, BundleError, WriteError
from autoglm.tensor.files import atomic_folder, clean_stale, copy_tree, temporary_name

MAX_BYTES = 16 << 30
# An entry that was given out this recently may still be being copied, so it is never evicted.
GRACE_S = 600.0
_VERSION = 1
_SOURCES = (".py", ".toml", ".json")
_ENTRY, _FILES, _LOCK = "entry.json", "files", ".lock"
_log = logging.getLogger("autoglm.cache")


def cache_key(
    graph_digest: str,
    config: Mapping[str, Any],
    backend: str,
    toolkit: str,
    driver: str,
    cpu_features: str,
) -> str:
    """The digest of all that decides what a compile gives, our own sources included."""
    facts = {
        "graph": graph_digest,
        "config": encode(config),
        "backend": backend,
        "toolkit": toolkit,
        "driver": driver,
        "cpu": cpu_features,
        "autoglm": _own_sources(),
        "version": _VERSION,
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def get(key: str, *, root: Path | None = None) -> Path | None:
    """The folder kept under `key`, every hash checked, or None. Do not write to it.

    A damaged entry is removed and counts as none.
    """
    entry = _place(key, root)
    try:
        listed = _listed(entry)
        wrong = problems(entry / _FILES, listed)
    except FileNotFoundError:
        if not entry.exists():
            return None
        wrong = [f"{_ENTRY} is missing"]
    except (AutoGLMError, OSError) as error:
        wrong = [str(error)]
    if wrong:
        _log.warning("cache entry %s is damaged and was removed: %s", key, "; ".join(wrong[:3]))
        _remove(entry)
        return None
    with suppress(OSError):  # another process may have evicted it; the caller's copy will notice
        os.utime(entry / _ENTRY)
    return entry / _FILES


def put(
    key: str, folder: Path, *, root: Path | None = None, max_bytes: int = MAX_BYTES
) -> Path | None:
    """Keep a copy of `folder` under `key`; where one is kept already, that one stays.

    A cache that cannot be written (full disk, no permission) is said in the log and gives None:
    the compile itself has succeeded.
    """
    entry = _place(key, root)
    kept = get(key, root=root)
    if kept is not None:
        return kept
    try:
        _write(entry, folder)
    except WriteError as error:
        kept = get(key, root=root)  # another process may have been first
        if kept is None:
            _log.warning("the compile cache was not written: %s %s", error, error.hint)
        return kept
    evict(root=root, max_bytes=max_bytes, keep=key)
    return entry / _FILES


def evict(
    *,
    root: Path | None = None,
    max_bytes: int = MAX_BYTES,
    keep: str = "",
    grace_s: float = GRACE_S,
) -> list[str]:
    """Remove the least recently used entries until the rest fit `max_bytes`; their keys.

    Entries used within `grace_s` seconds stay.
    """
    home = _root(root)
    with _only_one(home) as mine:
        if not mine:  # another process is at it
            return []
        clean_stale(home)
        used = sorted(_entries(home))
        total = sum(size for _, size, _ in used)
        gone: list[str] = []
        for when, size, key in used:
            if total <= max_bytes:
                break
            if key == keep or abs(time.time() - when) < grace_s:
                continue
            _remove(home / key)
            total -= size
            gone.append(key)
    return gone


def clear(*, root: Path | None = None) -> int:
    """Remove every entry; how many there were."""
    home = _root(root)
    keys = [key for _, _, key in _entries(home)]
    for key in keys:
        _remove(home / key)
    return len(keys)


def _root(root: Path | None) -> Path:
    if root is not None:
        return root
    from autoglm.settings import Settings

    return Settings.read().cache_dir / "artifacts"


def _place(key: str, root: Path | None) -> Path:
    if len(key) != 64 or not set(key) <= set("0123456789abcdef"):
        raise BundleError("{key!r} is not a cache key.", key=key[:80])
    return _root(root) / key


def _write(entry: Path, folder: Path) -> None:
    with atomic_folder(entry) as temporary:
        copy_tree(folder, temporary / _FILES)
        files = encode(fingerprint(temporary / _FILES))
        body = {"version": _VERSION, "files": files, "digest": _digest(files)}
        (temporary / _ENTRY).write_text(json.dumps(body, sort_keys=True), encoding="utf-8")


def _listed(entry: Path) -> dict[str, FileFacts]:
    try:
        body = json.loads((entry / _ENTRY).read_bytes())
        files, digest = body["files"], body["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError("{file} cannot be read.", file=_ENTRY) from error
    if _digest(files) != digest:
        raise BundleError("{file} has changed since it was written.", file=_ENTRY)
    return {name: decode(FileFacts, facts, name) for name, facts in files.items()}


def _digest(files: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _entries(home: Path) -> Iterator[tuple[float, int, str]]:
    """When each entry was last used, its bytes, its key."""
    for path in home.iterdir() if home.is_dir() else ():
        if path.name.startswith("."):
            continue
        with suppress(OSError):  # it may be taken away while we look
            size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
            yield (path / _ENTRY).stat().st_mtime, size, path.name


def _remove(entry: Path) -> None:
    aside = temporary_name(entry)
    with suppress(FileNotFoundError):
        entry.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _only_one(home: Path) -> Iterator[bool]:
    """Whether this process alone tidies the cache now; the lock dies with its holder."""
    if not home.is_dir():
        yield False
        return
    with (home / _LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@cache
def _own_sources() -> str:
    """Digest of our own code: another autoglm may compile the same graph otherwise."""
    import autoglm

    return sources_digest(Path(str(autoglm.__file__)).parent)


def sources_digest(home: Path) -> str:
    """Digest of the code below `home`, and of the tables and limits that it reads."""
    digest = hashlib.sha256()
    for path in sorted(p for p in home.rglob("*") if p.suffix in _SOURCES):
        digest.update(path.relative_to(home).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
