"""A model that came from Paddle goes straight through: its own files are the artifact."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.rewrite.save import input_infos, output_infos
from autoglm.spec import Artifact, CompileOptions

if TYPE_CHECKING:
    import onnx_ir as ir

# What the paddle frontend writes into a model's metadata.
KEY = "autoglm.paddle"


@dataclass(frozen=True, slots=True)
class Original:
    """The files a model was read from, and the names of its edge there."""

    model: Path
    params: Path | None
    sha256: dict[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    feeds: tuple[str, ...]  # the inputs as Paddle names them

    def keep(self, model: ir.Model, out: Path, toolkit: str, options: CompileOptions) -> Artifact:
        """Copy the files into `out`."""
        entry = f"model{self.model.suffix}"
        shutil.copyfile(self.model, out / entry)
        if self.params is not None:
            shutil.copyfile(self.params, out / "model.pdiparams")
        return Artifact(
            backend="kunlun",
            kind="paddle",
            entry=entry,
            toolkit=toolkit,
            inputs=input_infos(model),
            outputs=output_infos(model),
            meta={
                "params": "model.pdiparams" if self.params is not None else "",
                "feeds": list(self.feeds),
                "threads": options.threads,
                "optimize": options.optimize,
                "original": dict(self.sha256),
            },
        )


def original(model: ir.Model) -> Original | None:
    """The files, where this is the whole of a model that came from them and they are unchanged."""
    text = model.metadata_props.get(KEY)
    if not text:
        return None
    found = _read(text)
    if found is None:
        return None
    inputs = tuple(info.name for info in input_infos(model))
    outputs = tuple(info.name for info in output_infos(model))
    whole = (inputs, outputs) == (found.inputs, found.outputs)
    return found if whole and _unchanged(found) else None


def _read(text: str) -> Original | None:
    try:
        raw = json.loads(text)
        return Original(
            Path(raw["model"]),
            Path(raw["params"]) if raw["params"] else None,
            dict(raw["sha256"]),
            tuple(raw["inputs"]),
            tuple(raw["outputs"]),
            tuple(raw["feeds"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError):  # not written by our frontend
        return None


def _unchanged(found: Original) -> bool:
    paths = [path for path in (found.model, found.params) if path is not None]
    try:
        return all(
            path.is_file() and _sha256(path) == found.sha256.get(path.name) for path in paths
        )
    except (OSError, ValueError):  # moved away since: the converted model is still at hand
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
