"""`check` for language models: from config.json alone, what fits where, how fast, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoglm.errors import ConfigError
from autoglm.llm.architecture import Architecture
from autoglm.llm.memory import Load, sequence_bytes, token_bytes
from autoglm.llm.plan import Row, SplitRow, TargetPlan, plan_target
from autoglm.llm.read import MOST_BYTES, architecture_of, config_file, read_config
from autoglm.llm.storage import STORAGES, checkpoint_storage
from autoglm.llm.target import Target, targets_of
from autoglm.llm.weights import active_parameters, all_weights, parameters, spare_parameters
from autoglm.messages import tr
from autoglm.spec import Fit

PRECISIONS = ("auto", *STORAGES)
DEFAULT_CONTEXT = 8192
_MOST_DEVICES = 1024
_INDEX = "model.safetensors.index.json"
_STRAY = 0.01  # of the checkpoint's bytes: scales, buffers


@dataclass(frozen=True, slots=True)
class LanguageReport:
    """A language model on one target or several."""

    model: str
    architecture: Architecture
    stored: str  # precision of the checkpoint
    parameters: int
    active_parameters: int  # that one token meets
    cache_token_bytes: int  # of all layers, in 16 bits
    load: Load
    devices: int
    targets: tuple[TargetPlan, ...]
    notes: tuple[str, ...]

    @property
    def fit(self) -> Fit:
        """The worst of the targets."""
        order = (Fit.NO, Fit.FALLBACKS, Fit.FITS)
        return min((t.fit for t in self.targets), key=order.index)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        arch = self.architecture
        return {
            "model": self.model,
            "fit": self.fit.value,
            "model_type": arch.model_type,
            "layers": len(arch.layers),
            "hidden": arch.hidden,
            "vocabulary": arch.vocabulary,
            "max_context": arch.context,
            "rope": asdict(arch.rope),
            "stored": self.stored,
            "parameters": self.parameters,
            "active_parameters": self.active_parameters,
            "cache_bytes_per_token": self.cache_token_bytes,
            "cache_bytes_per_sequence": sequence_bytes(arch, self.load.context, 2),
            "context": self.load.context,
            "concurrency": self.load.sequences,
            "devices": self.devices,
            "targets": [self._target(t) for t in self.targets],
            "notes": list(self.notes),
        }

    def _target(self, plan: TargetPlan) -> dict[str, Any]:
        return {
            "target": plan.target.name,
            "backend": plan.target.backend,
            "memory_bytes": plan.target.memory_bytes,
            "fit": plan.fit.value,
            "reason": plan.reason,
            "precision": plan.chosen.storage.name,
            "remedies": list(plan.remedies),
            "rows": [self._row(row) for row in plan.rows],
        }

    def _row(self, row: Row) -> dict[str, Any]:
        return {
            "precision": row.storage.name,
            "fit": row.fit.value,
            "reason": row.reason,
            "tensor": row.layout.tensor,
            "pipeline": row.layout.pipeline,
            "weights_bytes": row.weights_bytes,
            "per_device_bytes": {**asdict(row.need), "total": row.need.total},
            "largest_context": row.context,
            "largest_concurrency": row.concurrency,
            "fewest_devices": row.devices,
            "first_token_512_s": row.first_short.seconds,
            "first_token_s": row.first_full.seconds,
            "first_token_bound": row.first_full.bound,
            "tokens_per_s_1": 1 / row.single.seconds if row.single.seconds else None,
            "tokens_per_s": row.rate(self.load),
            "decode_bound": row.batch.bound,
            "uncertainty": row.uncertainty,
            "basis": list(row.basis),
            "splits": [_split(s) for s in row.splits],
        }


def check_language_model(
    source: object,
    *,
    backend: str = "auto",
    arch: str = "",
    to: Sequence[str] = (),
    precision: str = "auto",
    context: int | None = None,
    concurrency: int = 1,
    devices: int = 1,
) -> LanguageReport:
    """Plan the model of a folder or config.json; needs no weights, no toolkit and no device.

    `context` is prompt and answer together (None: 8192, or all the model takes); `devices` are
    those of each target. Raises ModelError for a wrong config.json, ConfigError for a wrong option.
    """
    path = config_file(source)
    if path is None:
        raise ConfigError(
            "{source} has no config.json; --context, --concurrency and --devices plan language "
            "models.",
            hint="Give a Hugging Face folder of a causal language model, or its config.json.",
            source=str(source)[:200],
        )
    model = architecture_of(read_config(path))
    window = min(model.context, DEFAULT_CONTEXT) if context is None else context
    _require(window, "context", 1 << 31)
    _require(concurrency, "concurrency", 1 << 16)
    _require(devices, "devices", _MOST_DEVICES)
    if precision not in PRECISIONS:
        raise ConfigError(
            "Precision {found} is not planned for language models; there are {known}.",
            found=precision,
            known=", ".join(PRECISIONS),
        )
    load = Load(window, concurrency)
    targets = targets_of(backend, arch, to)
    plans = tuple(
        plan_target(model, target, load, devices=devices, precision=precision) for target in targets
    )
    return LanguageReport(
        model=path.resolve().parent.name,
        architecture=model,
        stored=checkpoint_storage(model.quantization, model.dtype).name,
        parameters=parameters(model),
        active_parameters=active_parameters(model),
        cache_token_bytes=token_bytes(model, 2),
        load=load,
        devices=devices,
        targets=plans,
        notes=(
            *_model_notes(model),
            *_disk_notes(path.parent, model),
            *_device_notes(targets, devices),
        ),
    )


def checkpoint_bytes(folder: Path) -> int | None:
    """Bytes of the tensors on disk, from the index or the only file; None where there are none."""
    try:
        if (index := folder / _INDEX).is_file():
            if index.stat().st_size > MOST_BYTES:
                return None
            size = json.loads(index.read_bytes())["metadata"]["total_size"]
        else:
            with (folder / "model.safetensors").open("rb") as file:
                header = int.from_bytes(file.read(8), "little")
                size = file.seek(0, 2) - 8 - header
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return size if type(size) is int and 0 <= size < 1 << 63 else None


def _require(value: int, option: str, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise ConfigError(
            "{option} must be a whole number from 1 to {most}, found {found}.",
            option=option,
            most=most,
            found=repr(value),
        )


def _model_notes(model: Architecture) -> list[str]:
    found = []
    if model.parts:
        parts = ", ".join(model.parts)
        found.append(tr("planned is the language model alone, without {parts}", parts=parts))
    if model.spare_layers:
        spare = f"{spare_parameters(model) / 1e9:.2f}"
        text = tr(
            "the checkpoint has {billion} B parameters more, for multi-token prediction",
            billion=spare,
        )
        found.append(text)
    if any(0 < layer.attention.window < model.context for layer in model.layers):
        found.append(tr("layers with a sliding window keep no more tokens than it"))
    return found


def _device_notes(targets: Sequence[Target], devices: int) -> list[str]:
    """What of the asked devices a target does not have."""
    if devices == 1 or all(target.chip for target in targets):
        return []
    return [tr("this machine is planned as one device, asked are {devices}", devices=devices)]


def _disk_notes(folder: Path, model: Architecture) -> list[str]:
    """What the checkpoint's size says of the config."""
    found = checkpoint_bytes(folder)
    if found is None:
        return []
    storage = checkpoint_storage(model.quantization, model.dtype)
    planned = sum(storage.bytes_of(w) * count for w, count in all_weights(model))
    planned += spare_parameters(model) * storage.bits / 8
    sizes = {"found": f"{found / 1e9:.2f}", "planned": f"{planned / 1e9:.2f}"}
    if model.parts or abs(found - planned) <= _STRAY * planned:
        return [tr("the checkpoint holds {found} GB, planned {planned} GB", **sizes)]
    text = tr(
        "the checkpoint holds {found} GB, but its config.json says {planned} GB: one of them is "
        "not this model's",
        **sizes,
    )
    return [text]


def _split(split: SplitRow) -> dict[str, Any]:
    prediction = split.decode
    return {
        "tensor": split.layout.tensor,
        "pipeline": split.layout.pipeline,
        "obstacle": split.obstacle,
        "per_device_bytes": split.need.total if split.need else None,
        "sent_bytes_per_token_and_layer": split.sent_bytes,
        "links_s": prediction.links_s if prediction else None,
        "step_s": prediction.seconds if prediction else None,
    }
