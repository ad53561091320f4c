"""What a path of Paddle is, told from names and first bytes; Paddle itself is not needed.

A program is `<name>.json` (Paddle 3, which begins with `{"base_code":{"magic":"pir"`) or
`<name>.pdmodel` (a protobuf message, Paddle 2); its weights are `<name>.pdiparams`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from autoglm.errors import FileMissingError, ModelError

_WEIGHTS = ".pdiparams"
_HEAD_BYTES = 256


@dataclass(frozen=True, slots=True)
class Source:
    """A program file, and where its weights should be."""

    model: Path
    params: Path


def recognise(source: str | os.PathLike[str]) -> Source | None:
    """What `source` is; None where it is nothing of Paddle's."""
    path = Path(source)
    try:
        if path.is_dir():
            return _in_folder(path)
        if path.suffix == _WEIGHTS:
            return _beside(path)
        if path.suffix == ".pdmodel" or (path.suffix == ".json" and is_program(path)):
            return Source(path, path.with_suffix(_WEIGHTS))
    except (OSError, ValueError):  # a name that no file can have
        return None
    return None


def _in_folder(folder: Path) -> Source | None:
    programs = [*sorted(folder.glob("*.pdmodel")), *filter(is_program, folder.glob("*.json"))]
    if len(programs) == 1:
        return Source(programs[0], programs[0].with_suffix(_WEIGHTS))
    weights = sorted(folder.glob(f"*{_WEIGHTS}"))
    if len(programs) > 1 or not weights:
        return None  # several: name one of the files
    return _beside(weights[0])


def _beside(weights: Path) -> Source:
    """The program that goes with these weights; it may be missing, which `check` says."""
    old = weights.with_suffix(".pdmodel")
    return Source(old if old.is_file() else weights.with_suffix(".json"), weights)


def is_program(path: Path) -> bool:
    """Whether a JSON file begins as Paddle 3 writes its programs."""
    with path.open("rb") as stream:
        head = b"".join(stream.read(_HEAD_BYTES).split())
    return head.startswith(b'{"base_code":') and b'"magic":"pir"' in head


def check(source: Source) -> bool:
    """Refuse what is missing or cut off, before Paddle starts; whether there are weights."""
    if not source.model.is_file():
        raise FileMissingError(
            "{weights} has no program beside it: there is no {path}.",
            hint="Save both with paddle.jit.save or paddle.static.save_inference_model.",
            weights=source.params.name,
            path=str(source.model),
        )
    if not source.model.stat().st_size:
        raise _damaged(source.model, "it is empty")
    wants = _wants_weights(source.model)
    if wants and not source.params.is_file():
        raise FileMissingError(
            "The weights of {model} are missing: there is no {path}.",
            hint="Copy both files; paddle.jit.save writes them side by side.",
            model=source.model.name,
            path=str(source.params),
        )
    return wants and source.params.stat().st_size > 0


def _wants_weights(model: Path) -> bool:
    if model.suffix != ".json":
        return True
    text = model.read_text("utf-8", "replace")
    try:
        program = json.loads(text)
    except ValueError as error:
        raise _damaged(model, f"its JSON ends wrongly ({error})") from error
    if not isinstance(program, dict) or "program" not in program:
        raise _damaged(model, "it holds no program")
    # A parameter is written as the operation "p".
    return '"#":"p"' in "".join(text.split())


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(
        "{path} is not a whole Paddle program: {reason}.",
        hint="Copy it again, or save the model again with paddle.jit.save.",
        path=str(path),
        reason=reason,
    )
