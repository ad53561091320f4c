"""Isolated environments for vendors' toolchains: each a recipe, with a Python of its own.

A virtual environment names its own folder in its scripts, so it is built where it stays; it counts
as there only once its mark, written last, is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from autoglm.errors import (
    AutoGLMError,
    BackendUnavailableError,
    ConfigError,
    LimitError,
    WriteError,
)
from autoglm.settings import Settings, child_environment
from autoglm.toolchain import Completed, run, tail
from autoglm.toolchain.pythons import find_python

RECIPES = Path(__file__).parent / "recipes"
_MARK = "autoglm-complete.json"
_INSTALL_S = 3600.0
_LOOK_S = 0.5
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a toolchain's environment is made, and what its user agrees to."""

    name: str
    title: str
    version: str
    python: tuple[str, ...]  # minor versions that fit; () = any
    packages: tuple[str, ...]
    no_deps: tuple[str, ...]  # installed without what they declare to need
    licence: str
    licence_url: str
    disk_gb: float
    check: str  # Python that fails where the installed toolchain does not work

    @property
    def digest(self) -> str:
        """Of all that decides what gets installed."""
        text = repr((self.python, self.packages, self.no_deps))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Environment:
    """An installed toolchain."""

    name: str
    folder: Path
    python: Path
    version: str
    size_bytes: int = 0
    python_version: str = ""

    def variables(self) -> dict[str, str]:
        """For its programs: its own first on PATH, nothing of our Python."""
        mine = child_environment()
        path = os.pathsep.join([str(self.python.parent), mine.get("PATH", os.defpath)])
        return {**mine, "PATH": path, "VIRTUAL_ENV": str(self.folder), "PYTHONNOUSERSITE": "1"}

    def run(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        timeout_s: float = 600.0,
        memory_bytes: int | None = None,
        extra_env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Completed:
        """Run one of its programs to its end, as `toolchain.run` does."""
        return run(
            argv,
            log=log,
            timeout_s=timeout_s,
            memory_bytes=memory_bytes,
            env={**self.variables(), **(extra_env or {})},
            cwd=cwd,
        )


@cache
def recipes() -> dict[str, Recipe]:
    """Every toolchain that can be installed, by name."""
    return {path.stem: _recipe(path) for path in sorted(RECIPES.glob("*.toml"))}


def _recipe(path: Path) -> Recipe:
    raw: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    lists: dict[str, Any] = {
        key: tuple(raw.pop(key, ())) for key in ("python", "packages", "no_deps")
    }
    return Recipe(name=path.stem, **lists, **raw)


def recipe(name: str) -> Recipe:
    """The recipe of that name."""
    try:
        return recipes()[name]
    except KeyError:
        raise ConfigError(
            "No toolchain is called {name!r}; known: {known}.",
            hint="`autoglm toolchain list` describes each.",
            name=name,
            known=", ".join(recipes()),
        ) from None


def home(name: str) -> Path:
    """Where that toolchain's environment is, or would be."""
    return _root() / f"{name}-{recipe(name).digest}"


def _root() -> Path:
    return Settings.read().cache_dir / "toolchains"


def _folders(name: str) -> list[Path]:
    """Of every version of the recipe."""
    return list(_root().glob(f"{name}-" + "[0-9a-f]" * 12))


def find(name: str) -> Environment | None:
    """The installed environment; None where there is none. Starts no process."""
    folder = home(name)
    try:
        facts = json.loads((folder / _MARK).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    python = folder / "bin" / "python"
    if not python.exists():  # the Python it was made from is gone
        return None
    return Environment(
        name, folder, python, facts["version"], facts["size_bytes"], facts["python_version"]
    )


def require(name: str) -> Environment:
    """The installed environment; BackendUnavailableError where there is none."""
    found = find(name)
    if found is None:
        raise BackendUnavailableError(
            "Toolchain {name} is not installed.",
            hint="autoglm toolchain install {name}",
            name=name,
        )
    return found


def install(name: str, *, progress: Progress | None = None, force: bool = False) -> Environment:
    """Make the environment, or return the one that is there; nothing half is ever found."""
    asked = recipe(name)
    with _locked(name):
        present = find(name)
        if present is not None and not force:
            return present
        _need_space(asked)
        python = find_python(asked.python, name)
        folder = home(name)
        if folder.exists():
            _delete(folder)
        try:
            _build(asked, python, folder, progress or (lambda _: None))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        for old in _folders(name):
            if old != folder:  # made from an older recipe
                shutil.rmtree(old, ignore_errors=True)
    return require(name)


def remove(name: str) -> bool:
    """Delete the environments of that toolchain; whether there were any."""
    recipe(name)
    with _locked(name):
        found = _folders(name)
        for folder in found:
            _delete(folder)
    return bool(found)


def _delete(folder: Path) -> None:
    """The mark first: whatever is left then does not count as there."""
    try:
        (folder / _MARK).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise WriteError(
            "{folder} cannot be written: {cause}.", folder=folder, cause=error.strerror
        ) from error


def _build(asked: Recipe, python: Path, folder: Path, progress: Progress) -> None:
    log = _root() / f"{asked.name}.log"
    inside = folder / "bin" / "python"
    pip = [str(inside), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    steps = [[str(python), "-m", "venv", str(folder)]]
    steps += [[*pip, *asked.packages]] if asked.packages else []
    steps += [[*pip, "--no-deps", *asked.no_deps]] if asked.no_deps else []
    steps += [[str(inside), "-c", asked.check]] if asked.check else []
    partial = Environment(asked.name, folder, inside, asked.version)
    for argv in steps:
        try:
            with _followed(log, progress):
                partial.run(argv, log=log, timeout_s=_INSTALL_S)
        except AutoGLMError as error:
            raise BackendUnavailableError(
                "Toolchain {name} could not be installed: {cause}",
                hint="The whole log is in {log}.",
                name=asked.name,
                cause=str(error),
                log=str(log),
            ) from error
    facts = {
        "version": asked.version,
        "python_version": _python_version(folder),
        "size_bytes": sum(p.lstat().st_size for p in folder.rglob("*")),
    }
    temporary = folder / f"{_MARK}.tmp"
    temporary.write_text(json.dumps(facts), "utf-8")
    temporary.replace(folder / _MARK)


def _python_version(folder: Path) -> str:
    lines = (folder / "pyvenv.cfg").read_text("utf-8").splitlines()
    pairs = (line.partition("=") for line in lines)
    return next((v.strip() for key, _, v in pairs if key.strip() == "version"), "")


def _need_space(asked: Recipe) -> None:
    _root().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(_root()).free / 1e9
    if free < 2 * asked.disk_gb:  # the downloads are unpacked beside the result
        raise LimitError(
            "Toolchain {name} needs {need} GB of disk while it is installed; {free} GB are free.",
            hint="Free some, or set AUTOGLM_CACHE_DIR to another disk.",
            name=asked.name,
            need=f"{2 * asked.disk_gb:.1f}",
            free=f"{free:.1f}",
        )


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One install or removal at a time; the lock goes with its process."""
    try:
        _root().mkdir(parents=True, exist_ok=True)
        stream = (_root() / f"{name}.lock").open("w")
    except OSError as error:
        raise WriteError(
            "{folder} cannot be written: {cause}.", folder=_root(), cause=error.strerror
        ) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def _followed(log: Path, progress: Progress) -> Iterator[None]:
    """Report the log's last line while a program writes it."""
    ended = threading.Event()

    def follow() -> None:
        said = ""
        while not ended.wait(_LOOK_S):
            lines = tail(log).splitlines() if log.exists() else []
            if lines and lines[-1] != said:
                said = lines[-1]
                progress(said)

    watcher = threading.Thread(target=follow, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
