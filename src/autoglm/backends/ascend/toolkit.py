"""Where CANN is, without loading it."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from autoglm.errors import BackendUnavailableError

_NOTES = ("ascend_toolkit_install.info", "version.info", "version.cfg")


def version() -> str:
    """Version of the CANN whose `atc` or `acl` is here; "" where neither is."""
    atc = shutil.which("atc")
    if atc is None and find_spec("acl") is None:
        return ""
    return (_noted(Path(atc)) if atc else "") or "of unknown version"


def _noted(atc: Path) -> str:
    # Above .../ascend-toolkit/latest/bin/atc or .../<arch>-linux/bin/atc.
    for folder in atc.resolve().parents[1:4]:
        for note in (folder / name for name in _NOTES):
            if note.is_file():
                found = re.search(
                    r"(?i)version\s*=\s*\[?([\w.]+)", note.read_text("utf-8", "replace")
                )
                if found:
                    return found[1]
    return ""


def missing(what: str) -> BackendUnavailableError:
    """The error for a part of CANN that is not here."""
    return BackendUnavailableError(
        "CANN's {what} is not here.",
        hint="Install CANN (toolkit and the ops package of the chip, hiascend.com/software/cann), "
        "then `source <its folder>/set_env.sh` in the shell that starts autoglm.",
        what=what,
    )
