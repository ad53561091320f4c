"""One Hugging Face folder to one `ir.Model`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.errors import ModelError
from autoglm.frontends import finish, shown
from autoglm.frontends.huggingface.families import FAMILIES, encoder
from autoglm.frontends.huggingface.folder import read_json, read_weights
from autoglm.spec import Value

if TYPE_CHECKING:
    import onnx_ir as ir


def load_folder(folder: Path, example_inputs: Sequence[Value] | None) -> ir.Model:
    """The folder's model: built here for encoder families, through transformers for others."""
    config = read_json(folder, "config.json")
    kind = config.get("model_type")
    if kind in FAMILIES:
        return finish(build(folder, config))
    return finish(_through_transformers(folder, str(kind), example_inputs))


def build(folder: Path, config: dict[str, Any]) -> ir.Model:
    """An encoder's graph over the folder's mapped weights."""
    from autoglm.frontends.huggingface.encoder import EncoderGraph, finish_graph
    from autoglm.frontends.huggingface.pooling import pooling_plan, sentence_embedding

    graph = EncoderGraph(encoder(config), read_weights(folder))
    hidden = graph.run()
    pooler = graph.pooler(hidden)
    outputs = [hidden, *([pooler] if pooler is not None else [])]
    mode, normalize, note = pooling_plan(folder)
    if mode:
        outputs.append(sentence_embedding(graph.build, hidden, graph.mask, mode, normalize))
    model = finish_graph(graph, outputs, folder.resolve().name)
    if note:
        model.metadata_props["autoglm.pooling_note"] = note
    return model


def _through_transformers(
    folder: Path, kind: str, example_inputs: Sequence[Value] | None
) -> ir.Model:
    missing = [n for n in ("torch", "transformers") if importlib.util.find_spec(n) is None]
    if missing:
        raise ModelError(
            "Model type {kind} is not built from its folder, and {missing} is not installed.",
            hint="Built here: {known}. Others: pip install 'open-autoglm[torch]' transformers, or "
            "export the model to ONNX.",
            kind=shown(kind),
            missing=" and ".join(missing),
            known=", ".join(FAMILIES),
        )
    from autoglm.frontends.huggingface.other import export_auto_model

    return export_auto_model(folder, example_inputs)
