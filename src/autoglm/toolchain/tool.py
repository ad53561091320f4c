"""Ask a device tool one question; a missing, slow or failing tool is an answer as well."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm.errors import AutoGLMError
from autoglm.toolchain import run

TIMEOUT_S = 2.5  # less than the 3 s that a whole probe may take
_MOST_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """What the tool printed, or in one line why it did not answer."""

    text: str = ""
    problem: str = ""


def ask(argv: Sequence[str], *, output: str = "", timeout_s: float = TIMEOUT_S) -> Answer:
    """Run `argv` and give what it printed; with `output`, what it wrote to that file instead.

    "{folder}" in `argv` and `output` is a private folder. Never raises.
    """
    if shutil.which(argv[0]) is None:
        return Answer(problem=f"{argv[0]} is not on PATH")
    try:
        with tempfile.TemporaryDirectory(prefix="autoglm-ask-") as folder:
            words = [word.replace("{folder}", folder) for word in argv]
            log = Path(folder) / "log"
            problem = _run(words, log, timeout_s)
            source = Path(output.replace("{folder}", folder)) if output else log
            return Answer(_read(source), problem)
    except OSError as error:
        return Answer(problem=f"{argv[0]} cannot be run: {error.strerror or error}")


def _run(argv: Sequence[str], log: Path, timeout_s: float) -> str:
    try:
        run(argv, log=log, timeout_s=timeout_s)
    except AutoGLMError as error:
        return str(error)
    return ""


def _read(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as stream:
        return stream.read(_MOST_BYTES).decode("utf-8", "replace")
