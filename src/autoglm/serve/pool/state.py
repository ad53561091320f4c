"""What was said of models over REST or by `autoglm models`, kept in a file: it holds again after a
restart, over what each `model.toml` says.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoglm.documents import parse_document
from autoglm.errors import AutoGLMError, ConfigError
from autoglm.messages import tr
from autoglm.serve.pool.canary import Canary, canary
from autoglm.serve.pool.entries import Model
from autoglm.serve.pool.repository import require_name
from autoglm.tensor.files import atomic_write

FILE = "autoglm-pool.json"  # in a model repository


class _Canary(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: str
    percent: float = Field(ge=0, le=100)
    by: str = "client"


class Said(BaseModel):
    """What was said of one model; what is not in it is as `model.toml` says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    aliases: dict[str, str] = {}  # alias -> version; "" = removed
    labels: dict[str, dict[str, bool]] = {}  # label -> version -> whether it has it
    canary: _Canary | None = None

    def put_on_trial(self, chosen: Canary | None) -> None:
        """`chosen` is the model's canary from now on."""
        self.canary = (
            _Canary(version=chosen.version, percent=chosen.percent, by=chosen.by)
            if chosen
            else None
        )

    def model(self) -> Model:
        """A model without versions, of which all this was said."""
        on_trial = self.canary
        return Model(
            aliases={alias: version for alias, version in self.aliases.items() if version},
            labels={
                label: {version for version, on in versions.items() if on}
                for label, versions in self.labels.items()
            },
            canary=canary(on_trial.version, on_trial.percent, on_trial.by) if on_trial else None,
        )


class State:
    """All of it; without a path, for as long as the server runs."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.faults: list[AutoGLMError] = []  # what could not be read
        self._models: dict[str, Said] = {}
        self._written = ""
        self._writing = asyncio.Lock()

    def of(self, name: str) -> Said:
        """What was said of one model, to be read and changed."""
        return self._models.setdefault(name, Said())

    def read(self) -> None:
        """Take over what the file holds. What is wrong in it is a fault; all else counts."""
        if self.path is None or not self.path.exists():
            return
        try:
            models = _models(_document(self.path))
        except AutoGLMError as error:
            self.faults.append(_fault(self.path, error.localized()))
            return
        for name, said in models.items():
            try:
                self._models[require_name(name)] = Said.model_validate(said)
                self._models[name].model()
            except (ValidationError, AutoGLMError) as error:
                self._models.pop(name, None)
                self.faults.append(_fault(self.path, f"{name[:128]}: {_reason(error)}"))
        self._written = self._text()

    async def save(self) -> None:
        """Write what changed, whole or not at all; WriteError where it cannot be kept."""
        if self.path is not None:
            await asyncio.shield(self._save(self.path))

    async def _save(self, path: Path) -> None:
        async with self._writing:
            text = self._text()
            if text != self._written:
                await asyncio.to_thread(self._write, path, text)
                self._written = text

    def _write(self, path: Path, text: str) -> None:
        if self.faults and path.exists():
            path.replace(path.with_name(f"{path.name}.broken"))  # nothing in it is lost
            self.faults.clear()
        atomic_write(path, text)

    def _text(self) -> str:
        kept = {
            name: values
            for name, said in sorted(self._models.items())
            if (values := said.model_dump(exclude_defaults=True))
        }
        return json.dumps({"models": kept}, indent=1) + "\n" if kept or self._written else ""


def state_file(folder: Path | None) -> Path | None:
    """Where a model repository's state lies; None where nothing can be written there."""
    return folder / FILE if folder is not None and os.access(folder, os.W_OK) else None


def _document(path: Path) -> dict[str, Any]:
    """The table that `_write` wrote: JSON, whatever the file is called and however long it is."""
    try:
        return parse_document(path.read_text("utf-8-sig"), ".json", str(path))
    except OSError as error:
        raise ConfigError("{path}: {reason}", path=path, reason=error.strerror or error) from error
    except UnicodeDecodeError as error:
        raise ConfigError("{path}: not UTF-8 text.", path=path) from error


def _models(document: dict[str, Any]) -> dict[str, Any]:
    models = document.get("models")
    if not isinstance(models, dict) or len(document) != 1:
        found = ", ".join(document) or tr("nothing")
        raise ConfigError(
            "Expected a table {key!r} and no other; found {found}.", key="models", found=found
        )
    return models


def _reason(error: ValidationError | AutoGLMError) -> str:
    if isinstance(error, AutoGLMError):
        return error.localized()
    rows = error.errors(include_url=False)
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in rows)[:1000]


def _fault(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        "What {path} says is not in force: {reason}",
        hint="Mend it and start again; the next change over REST sets it aside as {path}.broken.",
        path=path,
        reason=reason,
    )
