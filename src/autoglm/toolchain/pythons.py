"""Find a Python of the version that a vendor's toolchain was built for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from autoglm.errors import BackendUnavailableError
from autoglm.settings import child_environment

_ASK = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"
_WAIT_S = 20.0


def find_python(versions: Sequence[str], name: str) -> Path:
    """The first Python of one of `versions` (any where empty) that can make environments."""
    for candidate in _candidates(versions):
        found = _described(candidate)
        if found is not None and (not versions or found[0] in versions):
            return found[1]
    raise BackendUnavailableError(
        "Toolchain {name} needs Python {versions}, and none was found: not on PATH, not in pyenv, "
        "not in uv.",
        hint="Get one: `uv python install {first}`, `pyenv install {first}`, or the system's "
        "package python{first} with python{first}-venv.",
        name=name,
        versions=" or ".join(versions) or "3",
        first=versions[0] if versions else "3",
    )


def _candidates(versions: Sequence[str]) -> Iterator[Path]:
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not versions or ours in versions:
        yield Path(sys.executable)
    for version in versions:
        on_path = shutil.which(f"python{version}")
        if on_path:
            yield Path(on_path)
        yield from _pyenv(version)
        found = _ask("uv", "python", "find", "--no-project", version)
        if found:
            yield Path(found[0])


def _pyenv(version: str) -> list[Path]:
    """Newest first; a shim on PATH answers only for the versions that pyenv has switched on."""
    root = _ask("pyenv", "root")
    folder = Path(root[0]) if root else Path.home() / ".pyenv"
    made = {p.name.rpartition(".")[2]: p for p in (folder / "versions").glob(f"{version}.*")}
    newest = sorted((last for last in made if last.isdigit()), key=int, reverse=True)
    return [made[last] / "bin" / "python" for last in newest]


def _described(python: Path) -> tuple[str, Path] | None:
    """Its version and real path; None where it does not start or lacks `venv`."""
    lines = _ask(str(python), "-c", _ASK)
    return (lines[0], Path(lines[1])) if len(lines) == 2 else None


def _ask(*argv: str) -> list[str]:
    """What a small program prints; nothing where it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=_WAIT_S,
            stdin=subprocess.DEVNULL,
            env=child_environment(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return []
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []
