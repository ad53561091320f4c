"""Files of one Hugging Face folder: JSON with a size limit, weights by fixed names only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoglm.errors import FileMissingError, ModelError, ModelSecurityError
from autoglm.frontends import shown
from autoglm.frontends.huggingface.safetensors import Weights, read_file
from autoglm.tensor import files

_MAX_JSON_BYTES = 64 << 20
_INDEX = "model.safetensors.index.json"


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object from the folder."""
    value = read_any_json(folder, name)
    if not isinstance(value, dict):
        raise ModelError(
            "{path} must hold a JSON object, found {kind}.",
            path=folder / name,
            kind=type(value).__name__,
        )
    return value


def read_any_json(folder: Path, name: str) -> Any:
    """Any JSON value from the folder; at most 64 MiB."""
    return files.read_json(inside(folder, name), _MAX_JSON_BYTES)


def inside(folder: Path, name: str) -> Path:
    """A file of the folder; a link may only lead to the blobs of its own Hugging Face cache."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ModelSecurityError(
            "{name} points outside the model's folder.",
            hint="Weight files lie in the folder itself.",
            name=shown(name),
        )
    path = folder / name
    real, root = path.resolve(), folder.resolve()
    if not real.is_relative_to(root) and real.parent != root.parent.parent / "blobs":
        raise ModelSecurityError(
            "{name} is a link that leads outside the model's folder.",
            hint="Copy the real file into the folder.",
            name=shown(name),
        )
    return path


def read_weights(folder: Path) -> Weights:
    """All weights of the folder, mapped: one safetensors file, or the shards an index names."""
    if (folder / "model.safetensors").exists():
        return read_file(inside(folder, "model.safetensors"))
    if (folder / _INDEX).exists():
        return _read_shards(folder)
    pickles = [
        n for n in ("pytorch_model.bin", "pytorch_model.bin.index.json") if (folder / n).exists()
    ]
    if pickles:
        raise ModelSecurityError(
            "{folder} has its weights only as {name}, a pickle that would run code when opened.",
            hint="Fetch the safetensors version of the model, or convert it with "
            "transformers' save_pretrained(safe_serialization=True).",
            folder=folder,
            name=pickles[0],
        )
    raise FileMissingError(
        "{folder} has no model.safetensors.",
        hint="Expected model.safetensors, or model.safetensors.index.json with its shards.",
        folder=folder,
    )


def _read_shards(folder: Path) -> Weights:
    table = read_json(folder, _INDEX).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise ModelError("{path} has no weight_map of file names.", path=folder / _INDEX)
    weights: Weights = {}
    for shard in sorted(set(table.values())):
        if "/" in shard or not shard.endswith(".safetensors"):
            raise ModelSecurityError(
                "{path} names the shard {shard}; shards are .safetensors files beside it.",
                path=folder / _INDEX,
                shard=shown(shard),
            )
        for name, tensor in read_file(inside(folder, shard)).items():
            if table.get(name) == shard:
                weights[name] = tensor
    missing = sorted(set(table) - set(weights))
    if missing:
        raise ModelError(
            "Tensor {name} is not in the shard {shard} that the index names.",
            hint="The folder is incomplete: download it again.",
            name=shown(missing[0]),
            shard=table[missing[0]],
        )
    return weights
