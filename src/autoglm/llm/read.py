"""A checkpoint's config.json as an `Architecture`; nothing else of the folder is needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoglm.errors import LimitError, ModelError
from autoglm.llm import fields
from autoglm.llm.architecture import Architecture, Attention, Dense, Experts, Index, Layer
from autoglm.llm.families import ALIASES, FAMILIES, Family, MoE, family_of
from autoglm.llm.rope import positions, rope_of
from autoglm.tensor.files import read_json

MOST_BYTES = 16 << 20  # of a JSON file that is read whole
_ENDINGS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "half": "fp16"}
_MOST_LAYERS = 4096
_OTHER_PARTS = ("vision_config", "audio_config")
_WINDOW_KINDS = ("full_attention", "sliding_attention")


def config_file(source: object) -> Path | None:
    """The config.json that `source` is, or has in it; None where there is none."""
    if not isinstance(source, str | os.PathLike):
        return None
    try:
        path = Path(source)
        if path.name == "config.json" and path.is_file():
            return path
        return path / "config.json" if (path / "config.json").is_file() else None
    except (OSError, ValueError):
        return None


def is_language_model(source: object) -> bool:
    """Whether `source` has the config.json of a causal language model that is planned here."""
    path = config_file(source)
    if path is None:
        return False
    try:
        config = read_config(path)
    except (ModelError, LimitError):
        return False
    return _speaks(config) and family_of(_text_of(config)[1]) is not None


def read_config(path: Path) -> Mapping[str, Any]:
    """The table of a config.json; ModelError where it is none."""
    value = read_json(path, MOST_BYTES)
    if not isinstance(value, dict):
        found = type(value).__name__
        raise ModelError("{path} must hold a JSON object, found {kind}.", path=path, kind=found)
    return value


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The language model that a config.json describes; one ModelError names a wrong field."""
    own, model_type = _text_of(config)
    family = family_of(model_type)
    if family is None:
        known = ", ".join(sorted({*FAMILIES, *ALIASES}))
        raise fields.unplanned("model_type", model_type or None, known)
    own = _ours(own, family)
    rope = rope_of(own)
    stated = fields.whole(own, "max_position_embeddings", high=1 << 31)
    nested = own.get("tie_word_embeddings") is None
    return Architecture(
        model_type=fields.text(config, "model_type"),
        hidden=fields.whole(own, "hidden_size"),
        vocabulary=fields.whole(own, "vocab_size"),
        layers=_layers(own, family),
        tied=fields.flag(config if nested else own, "tie_word_embeddings", family.tied),
        context=positions(rope, stated, counted=family.counted),
        rope=rope,
        dtype=_dtype(config, own),
        quantization=fields.table(config, "quantization_config")
        or fields.table(own, "quantization_config"),
        spare_layers=fields.whole(own, "num_nextn_predict_layers", 0, low=0, high=_MOST_LAYERS),
        parts=tuple(
            k for k in ("vision_config", "audio_config") if isinstance(config.get(k), dict)
        ),
    )


def _speaks(config: Mapping[str, Any]) -> bool:
    """Whether its architectures generate text; a file that names none is taken at its type."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        return True
    return any(str(name).endswith(_ENDINGS) or str(name) == "ChatGLMModel" for name in names)


def _text_of(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The part that describes the language model, and its type."""
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(inner := config.get(name), Mapping):
            return inner, str(inner.get("model_type") or config.get("model_type") or "")
    return config, str(config.get("model_type") or "")


def _ours(config: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The fields under our names, with what the family's files leave out."""
    given = {ours: config.get(theirs) for ours, theirs in family.keys.items()}
    if not config.get("multi_query_attention", True):
        given["num_key_value_heads"] = None
    for ours, theirs in family.keys.items():
        if given[ours] is None and ours != "num_key_value_heads":
            # ChatGLM-6B, the first, has the same model_type and other fields.
            raise fields.unplanned(theirs, None, "a whole number, as of ChatGLM2")
    kept = {k: v for k, v in config.items() if v is not None}
    return {**family.defaults, **kept, **given}


def _dtype(config: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """bf16 where no file says otherwise; that is what such models are published in."""
    for place in (config, own):
        for field in ("dtype", "torch_dtype"):
            if place.get(field) is not None:
                name = fields.text(place, field).removeprefix("torch.")
                if name in ("auto", "float8_e4m3fn"):
                    return "bf16"
                if name not in _DTYPES:
                    raise fields.unplanned(field, name, ", ".join(_DTYPES))
                return _DTYPES[name]
    return "bf16"


def _layers(config: Mapping[str, Any], family: Family) -> tuple[Layer, ...]:
    count = fields.whole(config, "num_hidden_layers", high=_MOST_LAYERS)
    windows = _windows(config, family, count)
    sparse = _sparse(config, family, count)
    dense = Dense(0)
    if not all(sparse):
        width = fields.whole(config, "intermediate_size")
        dense = Dense(width, _says(config, family.mlp_bias))
    experts = _experts(config, family.experts) if family.experts and any(sparse) else None
    indexes = _indexes(config, family, count)
    kinds = set(zip(windows, indexes, strict=True))
    seen = {kind: _attention(config, family, *kind) for kind in kinds}
    return tuple(
        Layer(seen[window, index], experts if experts and has else dense, family.norms)
        for window, index, has in zip(windows, indexes, sparse, strict=True)
    )


def _attention(
    config: Mapping[str, Any], family: Family, window: int, index: Index | None
) -> Attention:
    hidden = fields.whole(config, "hidden_size")
    heads = fields.whole(config, "num_attention_heads")
    shared: dict[str, Any] = {
        "bias": _says(config, family.bias),
        "output_bias": _says(config, family.output_bias),
        "window": window,
    }
    if family.latent:
        rotary = fields.whole(config, "qk_rope_head_dim")
        return Attention(
            heads=heads,
            kv_heads=heads,
            qk_dim=fields.whole(config, "qk_nope_head_dim") + rotary,
            v_dim=fields.whole(config, "v_head_dim"),
            latent=fields.whole(config, "kv_lora_rank"),
            rope_dim=rotary,
            query_rank=fields.whole(config, "q_lora_rank", 0, low=0),
            index=index,
            **shared,
        )
    kv_heads = fields.whole(config, "num_key_value_heads", heads, high=heads)
    if heads % kv_heads:
        raise fields.refuse(
            _name(family, "num_key_value_heads"), kv_heads, f"a divisor of {heads} heads"
        )
    if config.get("head_dim") is None and hidden % heads:
        raise fields.refuse("hidden_size", hidden, f"a multiple of {heads} heads")
    width = fields.whole(config, "head_dim", hidden // heads)
    return Attention(heads, kv_heads, width, width, qk_norm=_says(config, family.qk_norm), **shared)


def _name(family: Family, ours: str) -> str:
    return family.keys.get(ours, ours)


def _says(config: Mapping[str, Any], told: bool | str) -> bool:
    return told if isinstance(told, bool) else fields.flag(config, told)


def _experts(config: Mapping[str, Any], moe: MoE) -> Experts:
    count = fields.whole(config, moe.count)
    width = fields.whole(config, moe.width)
    shared = 0
    if moe.shared_width:
        shared = fields.whole(config, moe.shared_width, 0, low=0)
    elif moe.shared:
        shared = width * fields.whole(config, moe.shared, 0, low=0, high=count)
    active = fields.whole(config, "num_experts_per_tok", high=count)
    return Experts(count, active, width, shared, shared_gate=bool(moe.shared_width and shared))


def _sparse(config: Mapping[str, Any], family: Family, count: int) -> tuple[bool, ...]:
    """Which layers have experts."""
    moe = family.experts
    if moe is None or not fields.whole(config, moe.count, 0, low=0):
        return (False,) * count
    if told := fields.kinds(config, "mlp_layer_types", count, ("dense", "sparse")):
        return tuple(kind == "sparse" for kind in told)
    if moe.layers == "all":
        return (True,) * count
    if moe.layers == "step":
        step = fields.whole(config, "decoder_sparse_step", 1)
        dense = config.get("mlp_only_layers") or ()
        if not isinstance(dense, list | tuple):
            raise fields.refuse("mlp_only_layers", dense, "a list of layers")
        return tuple((i + 1) % step == 0 and i not in dense for i in range(count))
    first = fields.whole(config, "first_k_dense_replace", 0, low=0)
    every = fields.whole(config, "moe_layer_freq", 1)
    return tuple(i >= first and i % every == 0 for i in range(count))


def _windows(config: Mapping[str, Any], family: Family, count: int) -> tuple[int, ...]:
    """Tokens that each layer sees back; 0 = all."""
    if family.latent:  # their layer_types, where there are any, name the sparse attention
        return (0,) * count
    window = fields.whole(config, "sliding_window", 0, low=0, high=1 << 31)
    if told := fields.kinds(config, "layer_types", count, _WINDOW_KINDS):
        return tuple(window if kind == "sliding_attention" else 0 for kind in told)
    if not window or not family.windows:
        return (0,) * count
    if family.windows == "all":
        return (window,) * count
    if family.windows == "even":
        return tuple(0 if i % 2 else window for i in range(count))
    if family.windows == "pattern":
        pattern = fields.whole(config, "sliding_window_pattern", 6)
        return tuple(window if (i + 1) % pattern else 0 for i in range(count))
    if not fields.flag(config, "use_sliding_window"):
        return (0,) * count
    first = fields.whole(config, "max_window_layers", 28, low=0)
    return tuple(window if i >= first else 0 for i in range(count))


def _indexes(config: Mapping[str, Any], family: Family, count: int) -> tuple[Index | None, ...]:
    """The index of each layer; "shared" ones take what the last "full" one picked."""
    if not family.indexed:
        return (None,) * count
    told = fields.kinds(config, "indexer_types", count, ("full", "shared"))
    every = fields.whole(config, "index_topk_freq", 1)
    first = fields.whole(config, "index_skip_topk_offset", 2, low=0)
    own = told or tuple("shared" if max(i - first + 1, 0) % every else "full" for i in range(count))
    found = {
        kind: Index(
            fields.whole(config, "index_n_heads"),
            fields.whole(config, "index_head_dim"),
            fields.whole(config, "index_topk"),
            own=kind == "full",
        )
        for kind in ("full", "shared")
    }
    return tuple(found[kind] for kind in own)
