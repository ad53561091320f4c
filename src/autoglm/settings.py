"""What the environment says: the only module that reads it, and light enough for `--help`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Cache folder, language, and how to talk to the terminal."""

    cache_dir: Path
    language: str = "en"
    debug: bool = False
    no_color: bool = False

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings in force."""
        env = os.environ if environ is None else environ
        home = Path(env.get("HOME") or Path.home())
        xdg = Path(env.get("XDG_CACHE_HOME") or home / ".cache")
        return cls(
            cache_dir=Path(env.get("AUTOGLM_CACHE_DIR") or xdg / "autoglm"),
            language=env.get("AUTOGLM_LANG", "en").lower().replace("_", "-").split("-")[0],
            debug=env.get("AUTOGLM_DEBUG", "") not in ("", "0"),
            no_color=bool(env.get("NO_COLOR")),
        )


_OF_OUR_PYTHON = ("PYTHON", "VIRTUAL_ENV", "CONDA_", "PYENV_VERSION", "__PYVENV_LAUNCHER__")


def child_environment() -> dict[str, str]:
    """What a program with a Python of its own inherits: everything but what belongs to ours."""
    return {k: v for k, v in os.environ.items() if not k.startswith(_OF_OUR_PYTHON)}


def library_folders() -> tuple[str, ...]:
    """Where the dynamic linker is told to look first."""
    return tuple(f for f in os.environ.get("LD_LIBRARY_PATH", "").split(":") if f)
