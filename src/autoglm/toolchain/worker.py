"""Run a script of ours inside a toolchain's environment, and take the line of JSON it answers with.

The script stands alone: the environment has its own Python and none of our packages. What the
toolchain prints goes to the log beside the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoglm.errors import CompileError
from autoglm.toolchain.environment import Environment

MARK = "autoglm-answer: "


def ask(
    environment: Environment,
    script: Path,
    *arguments: str,
    log: Path,
    timeout_s: float = 600.0,
    memory_bytes: int | None = None,
    extra_env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> dict[str, Any]:
    """The script's answer; CompileError where it ends without one."""
    argv = command(environment.python, script, *arguments)
    done = environment.run(
        argv,
        log=log,
        timeout_s=timeout_s,
        memory_bytes=memory_bytes,
        extra_env=extra_env,
        cwd=cwd,
    )
    found = answer(log.read_text("utf-8", "replace"))
    if found is None:
        raise CompileError(
            "{script} in the environment {name} ended without an answer.",
            hint="The whole log is in {log}.",
            script=script.name,
            name=environment.name,
            log=str(log),
            tail=done.tail,
        )
    return found


def command(python: Path, script: Path, *arguments: str) -> list[str]:
    """The argument list: isolated, so that neither our folders nor PYTHON* variables reach it."""
    return [str(python), "-I", str(script), *arguments]


def answer(text: str) -> dict[str, Any] | None:
    """The last line of a log that is an answer; None where there is none."""
    for line in reversed(text.splitlines()):
        if line.startswith(MARK):
            try:
                found = json.loads(line.removeprefix(MARK))
            except ValueError:
                return None
            return found if isinstance(found, dict) else None
    return None
