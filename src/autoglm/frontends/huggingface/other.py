"""Families that are not built here: transformers' AutoModel through torch's ONNX exporter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.errors import ModelError
from autoglm.frontends.huggingface.folder import read_weights
from autoglm.spec import Value

if TYPE_CHECKING:
    import onnx_ir as ir


def export_auto_model(folder: Path, example_inputs: Sequence[Value] | None) -> ir.Model:
    """Load with AutoModel (safetensors only, no code from the folder) and export with torch."""
    read_weights(folder)  # the safetensors headers are checked here, pickles refused
    try:
        model = _load(folder)
        return _export(model, example_inputs)
    except Exception as error:  # transformers and torch raise whatever a folder makes them meet
        lines = str(error).strip().splitlines()
        raise ModelError(
            "{folder} cannot be exported through transformers: {reason}.",
            hint="Export it with its own tools to ONNX, then give the .onnx file.",
            folder=folder,
            reason=(lines[0] if lines else type(error).__name__)[:300],
        ) from error


def _load(folder: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(
        str(folder),
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        attn_implementation="eager",
    ).eval()


def _export(model: Any, example_inputs: Sequence[Value] | None) -> ir.Model:
    import torch

    names = [model.main_input_name]
    if example_inputs is None:
        if names != ["input_ids"]:
            raise ModelError("the model takes {name}; give example inputs of it", name=names[0])
        values = [torch.ones(2, 8, dtype=torch.int64)]
    else:
        values = [torch.as_tensor(v) for v in example_inputs]
    names += ["attention_mask", "token_type_ids"][: len(values) - 1]
    arguments = dict(zip(names, values, strict=True))
    model.config.return_dict = False
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    free = {n: dict.fromkeys(range(v.dim()), torch.export.Dim.AUTO) for n, v in arguments.items()}
    logger, level = logging.getLogger("torch"), logging.getLogger("torch").level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (),
                kwargs=arguments,
                dynamo=True,
                verbose=False,
                opset_version=20,
                dynamic_shapes=free,
            )
    finally:
        logger.setLevel(level)
    if program is None:
        raise ModelError("torch.onnx.export gave no program")
    exported: ir.Model = program.model
    return exported
