"""What differs between encoder families: names of weights and config keys; the rest is shared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from autoglm.errors import ModelError
from autoglm.frontends import shown


@dataclass(frozen=True, slots=True)
class Family:
    """Names of one family's weights below its prefix, and of its config keys."""

    prefix: str
    layers: str = "encoder.layer.{i}."
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attended: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    output_norm: str = "output.LayerNorm"
    keys: dict[str, str] = field(default_factory=dict)  # our key -> the config's, where they differ
    positions: str = "absolute"  # or "after-padding": counted from pad_token_id + 1, padding apart
    token_types: str = "input"  # or "zero" (one row, added everywhere) or "none"
    relative_bias: bool = False


FAMILIES: dict[str, Family] = {
    "bert": Family("bert."),
    "electra": Family("electra."),
    "roberta": Family("roberta.", positions="after-padding", token_types="zero"),
    "xlm-roberta": Family("roberta.", positions="after-padding", token_types="zero"),
    "camembert": Family("roberta.", positions="after-padding", token_types="zero"),
    "distilbert": Family(
        "distilbert.",
        layers="transformer.layer.{i}.",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attended="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        output_norm="output_layer_norm",
        keys={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
        },
        token_types="none",
    ),
    "mpnet": Family(
        "mpnet.",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attended="attention.attn.o",
        attention_norm="attention.LayerNorm",
        positions="after-padding",
        token_types="none",
        relative_bias=True,
    ),
}

_ACTIVATIONS = {
    "gelu": ("Gelu", {"approximate": "none"}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "gelu_fast": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
}
_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Encoder:
    """The numbers that shape the graph, read from config.json."""

    family: Family
    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    embedding: int
    pad: int
    epsilon: float
    activation: tuple[str, dict[str, Any]]
    relative_buckets: int = 32

    @property
    def head(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads


def encoder(config: dict[str, Any]) -> Encoder:
    """Check config.json of an encoder family and take its numbers."""
    family = FAMILIES[config["model_type"]]
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise ModelError(
                "config.json has {key}: true; only encoders are built from the folder.",
                hint="pip install 'open-autoglm[torch]' transformers, or export the model to ONNX.",
                key=key,
            )
    kind = config.get("position_embedding_type") or "absolute"
    if kind != "absolute":
        raise ModelError(
            "config.json has position_embedding_type {found}; expected absolute.", found=shown(kind)
        )
    name = str(config.get(family.keys.get("hidden_act", "hidden_act"), "gelu"))
    if name not in _ACTIVATIONS:
        raise ModelError(
            "config.json has the activation {found}; known: {known}.",
            found=shown(name),
            known=", ".join(sorted(_ACTIVATIONS)),
        )
    hidden = _number(config, family, "hidden_size")
    made = Encoder(
        family=family,
        hidden=hidden,
        layers=_number(config, family, "num_hidden_layers", low=0),
        heads=_number(config, family, "num_attention_heads"),
        intermediate=_number(config, family, "intermediate_size"),
        vocabulary=_number(config, family, "vocab_size", high=1 << 26),
        positions=_number(config, family, "max_position_embeddings"),
        embedding=_number(config, family, "embedding_size", default=hidden),
        pad=_number(config, family, "pad_token_id", low=0, default=1, high=1 << 26),
        epsilon=_epsilon(config),
        activation=_ACTIVATIONS[name],
        relative_buckets=_number(config, family, "relative_attention_num_buckets", default=32),
    )
    if made.hidden % made.heads:
        raise ModelError(
            "config.json has hidden_size {hidden}, which {heads} heads do not divide.",
            hidden=made.hidden,
            heads=made.heads,
        )
    return made


def _number(
    config: dict[str, Any],
    family: Family,
    key: str,
    *,
    low: int = 1,
    high: int = _MAX,
    default: int | None = None,
) -> int:
    name = family.keys.get(key, key)
    value = config.get(name)
    value = default if value is None else value
    if type(value) is not int or not low <= value <= high:
        raise ModelError(
            "config.json: {key} must be a whole number from {low} to {high}, found {found}.",
            hint="The folder is incomplete or damaged: download it again.",
            key=name,
            low=low,
            high=high,
            found=shown(value),
        )
    return value


def _epsilon(config: dict[str, Any]) -> float:
    value = config.get("layer_norm_eps", 1e-12)
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ModelError("config.json: layer_norm_eps is {found}.", found=shown(value))
    return float(value)
