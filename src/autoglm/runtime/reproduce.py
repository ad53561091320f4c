"""A folder that repeats a compiler's failure: smallest model, command, log, versions."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.errors import BackendError
from autoglm.settings import Settings
from autoglm.spec import CompileOptions
from autoglm.tensor.files import atomic_folder

if TYPE_CHECKING:
    import onnx_ir as ir

FOLDER = "reproducers"
_RUN = """#!/bin/sh
# {count} node(s) that {toolkit} does not compile: {reason}
# The vendor's own command was:
#   {command}
cd "$(dirname "$0")" || exit 1
exec autoglm compile model.onnx --backend {backend} {options} --fallback-policy error -o out
"""


def write_reproducer(
    model: ir.Model,
    nodes: tuple[str, ...],
    backend: str,
    toolkit: str,
    options: CompileOptions,
    error: BackendError,
) -> Path:
    """Write it below the cache folder; the same failure of the same part has the same folder."""
    from autoglm import __version__
    from autoglm.rewrite.facts import model_digest
    from autoglm.rewrite.save import save_onnx

    identity = f"{model_digest(model)} {backend} {toolkit} {options.precision} {options.arch}"
    name = f"{backend}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    target = Settings.read().cache_dir / FOLDER / name
    with atomic_folder(target, replace=True) as place:
        save_onnx(model, place / "model.onnx")
        keep_log(error, place / "compile.log")
        versions = {
            "autoglm": __version__,
            backend: toolkit,
            "python": platform.python_version(),
            "platform": platform.platform(),
        }
        report = {
            "nodes": list(nodes),
            "error": str(error),
            "command": error.facts.get("argv", []),
            "precision": options.precision,
            "arch": options.arch,
            "settings": dict(options.settings),
        }
        (place / "versions.json").write_text(json.dumps(versions, indent=2) + "\n", "utf-8")
        (place / "failure.json").write_text(
            json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n", "utf-8"
        )
        script = place / "run.sh"
        script.write_text(_script(nodes, backend, toolkit, options, error), "utf-8")
        script.chmod(0o755)
    return target


def keep_log(error: BackendError, target: Path) -> None:
    """Copy the log that the error names; what it tells of it where that is gone."""
    log = Path(str(error.facts.get("log", "")))
    if log.is_file():
        shutil.copyfile(log, target)
    else:
        target.write_text(f"{error}\n{error.facts.get('tail', '')}\n", "utf-8")


def _script(
    nodes: tuple[str, ...],
    backend: str,
    toolkit: str,
    options: CompileOptions,
    error: BackendError,
) -> str:
    argv = error.facts.get("argv")
    command = shlex.join(map(str, argv)) if isinstance(argv, list) else "(in this process)"
    flags = ["--precision", options.precision]
    flags += ["--arch", options.arch] if options.arch else []
    for key, value in sorted(options.settings.items()):
        flags += ["--setting", f"{key}={value}"]
    return _RUN.format(
        count=len(nodes),
        toolkit=f"{backend} {toolkit}",
        reason=" ".join(str(error).split()),
        command="\n#   ".join(command.splitlines()),
        backend=shlex.quote(backend),
        options=shlex.join(flags),
    )
