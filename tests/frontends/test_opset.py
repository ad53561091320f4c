# ruff: noqa: E501 (the tables of cases read better in one line each)
"""Raised models answer as the originals do: against stored data, ONNX Runtime, and formulas."""

from __future__ import annotations

import glob
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from autoglm.frontends.onnx import Onnx
from autoglm.frontends.opset import NOTE, SAME, revisions
from autoglm.frontends.opset.adapters import ADAPTERS

DATA = Path(onnx.__path__[0]) / "backend" / "test" / "data"
ort.set_default_logger_severity(4)
RNG = np.random.default_rng(7)


def test_every_revision_of_every_operator_is_decided_on_once() -> None:
    decided = {(op, v) for op, versions in SAME.items() for v in versions}
    known = {(op, v) for op, versions in revisions().items() for v in versions}

    assert known == decided | set(ADAPTERS)
    assert not decided & set(ADAPTERS)


# ---------------------------------------------------------------------------- stored data


def run_ort(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return list(session.run(None, feeds))


def run_reference(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    return list(ReferenceEvaluator(proto).run(None, feeds))


def stored(path: Path, info: onnx.ValueInfoProto) -> Any:
    data = path.read_bytes()
    if info.type.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    return numpy_helper.to_array(TensorProto.FromString(data))


def agree(got: Any, want: Any) -> bool:
    if isinstance(want, list):
        return len(got) == len(want) and all(map(agree, got, want))
    got, want = np.asarray(got), np.asarray(want)
    if want.dtype.kind in "OUS":
        return bool(got.astype(str).tolist() == want.astype(str).tolist())
    return got.shape == want.shape and np.allclose(got, want, 1e-3, 1e-6, equal_nan=True)


def verdict(run: Any, proto: onnx.ModelProto, feeds: dict[str, Any], want: list[Any]) -> str:
    try:
        got = run(proto, feeds)
    except Exception as error:  # an engine's refusal is a result here
        return f"refused: {str(error)[:80]}"
    return "right" if all(map(agree, got, want)) else "wrong"


def legacy_cases() -> list[Path]:
    return sorted(Path(p) for p in glob.glob(str(DATA / "*" / "*" / "model.onnx")))


def test_every_stored_legacy_case_is_raised_and_answers_right() -> None:
    count: Counter[str] = Counter()
    wrong = []
    for path in legacy_cases():
        before = onnx.load(path)
        model = Onnx().load(path)
        after = ir.to_proto(model)
        weights = {w.name for w in before.graph.initializer}
        inputs = [i for i in before.graph.input if i.name not in weights]
        data = path.parent / "test_data_set_0"
        feeds = {v.name: stored(data / f"input_{i}.pb", v) for i, v in enumerate(inputs)}
        want = [stored(data / f"output_{i}.pb", v) for i, v in enumerate(before.graph.output)]
        reference = verdict(run_reference, after, feeds, want)
        engine = verdict(run_ort, after, feeds, want)
        count["cases"] += 1
        count["raised"] += model.opset_imports[""] == 18
        count["right on the reference"] += reference == "right"
        count["right on onnxruntime"] += engine == "right"
        count["onnxruntime refused the original"] += engine == "right" and verdict(
            run_ort, before, feeds, want
        ).startswith("refused")
        if "wrong" in (reference, engine):
            wrong.append((path.parent.name, reference, engine))

    print(dict(count))
    assert wrong == []
    assert count["raised"] == count["cases"]
    # The rest: 2 Gradient nodes no engine has, and StringNormalizer where locale en_US is missing.
    assert count["cases"] - count["right on the reference"] == 2
    assert count["cases"] - count["right on onnxruntime"] <= 6
    assert count["onnxruntime refused the original"] >= 34


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v2", "resnet50"])
def test_light_models_answer_as_before(name: str) -> None:
    path = DATA / "light" / f"light_{name}.onnx"
    before, model = onnx.load(path), Onnx().load(path)
    (given,) = model.graph.inputs
    feeds = {str(given.name): RNG.random([int(d) for d in given.shape], dtype=np.float32)}

    want, got = run_ort(before, feeds), run_ort(ir.to_proto(model), feeds)

    assert model.opset_imports[""] == 18
    np.testing.assert_allclose(got[0], want[0], 1e-5, 1e-7)


# ---------------------------------------------------------------------------- one adapter at a time


def legacy(
    opset: int,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Any],
    outputs: tuple[str, ...] = ("y",),
    weights: dict[str, Any] | None = None,
    shapes: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    def info(name: str, array: Any) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        return helper.make_tensor_value_info(name, kind, (shapes or {}).get(name, array.shape))

    graph = helper.make_graph(
        nodes,
        "g",
        [info(name, array) for name, array in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(w, n) for n, w in (weights or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    return onnx.shape_inference.infer_shapes(proto)


def typed(proto: onnx.ModelProto, kinds: dict[str, int]) -> onnx.ModelProto:
    for output in proto.graph.output:
        if not output.HasField("type"):
            output.CopyFrom(
                helper.make_tensor_value_info(output.name, kinds.get(output.name, 1), None)
            )
    return proto


def f32(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def node(op: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> Any:
    return helper.make_node(op, inputs, outputs or ["y"], name="n", **attributes)


X = f32(2, 3, 4, 5)
SQUARE = f32(1, 2, 6, 6)
ROIS = {
    "r": np.array([[0.0, 0, 4, 4], [1, 1, 5, 5]], np.float32),
    "b": np.zeros(2, np.int64),
}
CASES: dict[str, tuple[int, Any, dict[str, Any], dict[str, Any]]] = {
    "clip both": (9, node("Clip", ["x"], min=-0.5, max=0.5), {"x": X}, {}),
    "clip min": (9, node("Clip", ["x"], min=0.0), {"x": np.array([1, np.inf, -np.inf], np.float32)}, {}),
    "clip max": (9, node("Clip", ["x"], max=0.0), {"x": np.array([1, np.inf, -np.inf], np.float32)}, {}),
    "clip no bounds": (9, node("Clip", ["x"]), {"x": np.array([1, np.inf, -np.inf], np.float32)}, {}),
    "pad constant": (9, node("Pad", ["x"], pads=[0, 0, 1, 2, 0, 0, 3, 0], value=1.5), {"x": X}, {}),
    "pad reflect": (9, node("Pad", ["x"], pads=[0, 0, 1, 2, 0, 0, 1, 0], mode="reflect"), {"x": X}, {}),
    "pad edge with value": (9, node("Pad", ["x"], pads=[0, 0, 1, 2, 0, 0, 1, 0], mode="edge", value=2.0), {"x": X}, {}),
    "slice": (9, node("Slice", ["x"], starts=[1, -3], ends=[3, -1], axes=[1, 3]), {"x": X}, {}),
    "slice default axes": (9, node("Slice", ["x"], starts=[1, 0], ends=[2, 2]), {"x": X}, {}),
    "topk": (9, node("TopK", ["x"], ["y", "i"], k=2, axis=1), {"x": X}, {}),
    "softmax default axis": (11, node("Softmax", ["x"]), {"x": X}, {}),
    "softmax axis 0": (11, node("Softmax", ["x"], axis=0), {"x": X}, {}),
    "softmax axis 2": (12, node("Softmax", ["x"], axis=2), {"x": X}, {}),
    "softmax negative axis": (12, node("Softmax", ["x"], axis=-2), {"x": X}, {}),
    "softmax last axis": (9, node("Softmax", ["x"], axis=3), {"x": X}, {}),
    "softmax over 1x1 pictures": (9, node("Softmax", ["x"], axis=1), {"x": f32(2, 7, 1, 1)}, {}),
    "softmax of nothing": (12, node("Softmax", ["x"], axis=1), {"x": f32(0, 3, 4)}, {}),
    "logsoftmax": (9, node("LogSoftmax", ["x"], axis=1), {"x": X}, {}),
    "hardmax": (12, node("Hardmax", ["x"], axis=1), {"x": X}, {}),
    "upsample nearest": (8, node("Upsample", ["x"], scales=[1.0, 1.0, 2.0, 3.0]), {"x": SQUARE}, {}),
    "upsample nearest fraction": (8, node("Upsample", ["x"], scales=[1.0, 1.0, 1.5, 1.7]), {"x": SQUARE}, {}),
    "upsample linear": (8, node("Upsample", ["x"], scales=[1.0, 1.0, 2.0, 3.0], mode="linear"), {"x": SQUARE}, {}),
    "upsample with input": (9, node("Upsample", ["x", "s"]), {"x": SQUARE}, {"s": np.array([1, 1, 2, 2.5], np.float32)}),
    "resize nearest up": (10, node("Resize", ["x", "s"]), {"x": SQUARE}, {"s": np.array([1, 1, 2, 1.3], np.float32)}),
    "resize nearest down": (10, node("Resize", ["x", "s"]), {"x": SQUARE}, {"s": np.array([1, 1, 0.6, 0.5], np.float32)}),
    "resize linear up": (10, node("Resize", ["x", "s"], mode="linear"), {"x": SQUARE}, {"s": np.array([1, 1, 2, 1.7], np.float32)}),
    "resize linear down": (10, node("Resize", ["x", "s"], mode="linear"), {"x": SQUARE}, {"s": np.array([1, 1, 0.6, 0.5], np.float32)}),
    "resize 11 sizes": (11, node("Resize", ["x", "roi", "none", "sz"], mode="linear"), {"x": SQUARE},
                        {"roi": np.zeros(0, np.float32), "none": np.zeros(0, np.float32), "sz": np.array([1, 2, 9, 4], np.int64)}),
    "scatter": (9, node("Scatter", ["x", "i", "u"], axis=1), {"x": f32(3, 4), "u": f32(3, 2)}, {"i": np.array([[0, 1], [2, 3], [1, 0]], np.int64)}),
    "split sizes": (11, node("Split", ["x"], ["y", "z"], axis=3, split=[2, 3]), {"x": X}, {}),
    "split equal": (12, node("Split", ["x"], ["y", "z"], axis=2), {"x": X}, {}),
    "squeeze": (9, node("Squeeze", ["x"], axes=[0, 2]), {"x": f32(1, 3, 1, 2)}, {}),
    "squeeze all": (9, node("Squeeze", ["x"]), {"x": f32(1, 3, 1, 2)}, {}),
    "unsqueeze": (12, node("Unsqueeze", ["x"], axes=[-1, 0]), {"x": f32(2, 3)}, {}),
    "reduce sum": (9, node("ReduceSum", ["x"], axes=[1, 2], keepdims=0), {"x": X}, {}),
    "reduce sum all": (12, node("ReduceSum", ["x"]), {"x": X}, {}),
    "reduce mean": (9, node("ReduceMean", ["x"], axes=[1, 3]), {"x": X}, {}),
    "reduce max all": (12, node("ReduceMax", ["x"], keepdims=0), {"x": X}, {}),
    "reduce l2": (13, node("ReduceL2", ["x"], axes=[-1]), {"x": X}, {}),
    "dropout": (9, node("Dropout", ["x"], ratio=0.7), {"x": X}, {}),
    "batch norm": (9, node("BatchNormalization", ["x", "s", "b", "m", "v"], epsilon=0.1), {"x": X},
                   {"s": f32(3), "b": f32(3), "m": f32(3), "v": np.abs(f32(3))}),
    "batch norm 8 spatial": (8, node("BatchNormalization", ["x", "s", "b", "m", "v"], spatial=1), {"x": X},
                             {"s": f32(3), "b": f32(3), "m": f32(3), "v": np.abs(f32(3))}),
    "roi align": (10, node("RoiAlign", ["x", "r", "b"], output_height=2, output_width=2, sampling_ratio=2), {"x": SQUARE}, ROIS),
    "lstm": (9, node("LSTM", ["x", "w", "r"], hidden_size=4), {"x": f32(5, 2, 3)}, {"w": f32(1, 16, 3), "r": f32(1, 16, 4)}),
    "prelu": (8, node("PRelu", ["x", "s"]), {"x": X}, {"s": f32(3, 1, 1)}),
    "gemm": (9, node("Gemm", ["a", "b", "c"], alpha=0.5, transB=1), {"a": f32(2, 3)}, {"b": f32(4, 3), "c": f32(4)}),
    "maxpool": (8, node("MaxPool", ["x"], kernel_shape=[2, 2], pads=[1, 0, 0, 1]), {"x": X}, {}),
    "onehot": (9, node("OneHot", ["i", "d", "v"]), {"i": np.array([0, 2, 1], np.int64)}, {"d": np.array([3], np.int64), "v": np.array([0, 1], np.float32)}),
    "cast": (9, node("Cast", ["x"], to=TensorProto.INT32), {"x": X}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_a_raised_node_answers_as_onnxruntime_did_before(name: str, dynamic: bool) -> None:
    opset, made, inputs, weights = CASES[name]
    shapes = {n: [f"{n}{i}" for i in range(a.ndim)] for n, a in inputs.items()} if dynamic else None
    before = typed(
        legacy(opset, [made], inputs, tuple(made.output), weights, shapes),
        {"i": 7, "y": 6 if name == "cast" else 1},
    )

    model = Onnx().load(before)

    assert model.opset_imports[""] == 18, model.metadata_props
    for got, want in zip(run_ort(ir.to_proto(model), inputs), run_ort(before, inputs), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, 1e-6, 1e-6)


A = f32(2, 3, 4, 5)
AXES = {
    "channel": (f32(3), 1, lambda a, b: a + b[:, None, None]),
    "two axes": (f32(3, 4), 1, lambda a, b: a + b[:, :, None]),
    "first axis": (f32(2), 0, lambda a, b: a + b[:, None, None, None]),
    "last axis": (f32(5), 3, lambda a, b: a + b),
    "negative axis": (f32(4), -2, lambda a, b: a + b[:, None]),
    "scalar": (np.float32(2.5).reshape(1), 1, lambda a, b: a + b),
}


@pytest.mark.parametrize("name", AXES)
def test_opset_6_broadcasting_keeps_its_axis(name: str) -> None:
    b, axis, formula = AXES[name]
    before = typed(
        legacy(6, [node("Add", ["a", "b"], broadcast=1, axis=axis)], {"a": A, "b": b}), {}
    )

    model = Onnx().load(before)

    got = run_ort(ir.to_proto(model), {"a": A, "b": b})[0]
    assert model.opset_imports[""] == 18
    np.testing.assert_allclose(got, formula(A, b), 1e-6)


def test_opset_6_prelu_has_one_slope_per_channel() -> None:
    slope = f32(3)
    before = typed(legacy(6, [node("PRelu", ["a", "s"])], {"a": A}, weights={"s": slope}), {})

    got = run_ort(ir.to_proto(Onnx().load(before)), {"a": A})[0]

    np.testing.assert_allclose(got, np.where(A < 0, A * slope[:, None, None], A), 1e-6)


def test_a_body_is_raised_with_its_graph() -> None:
    made = node("Softmax", ["x"], ["t"], axis=1)
    other = helper.make_node("Clip", ["x"], ["e"], min=0.0)
    outputs = [[helper.make_tensor_value_info(n, 1, None)] for n in "te"]
    bodies = [
        helper.make_graph([n], f"b{i}", [], o)
        for i, (n, o) in enumerate(zip((made, other), outputs, strict=True))
    ]
    choose = helper.make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    inputs = {"x": X, "c": np.array(True)}
    before = typed(legacy(10, [choose], inputs), {})

    model = Onnx().load(before)

    assert model.opset_imports[""] == 18
    for flag in (True, False):
        feeds = {"x": X, "c": np.array(flag)}
        got, want = run_ort(ir.to_proto(model), feeds)[0], run_ort(before, feeds)[0]
        np.testing.assert_allclose(got, want, 1e-6)


KEPT = {
    "batch norm per element": (8, node("BatchNormalization", ["x", "s", "b", "m", "v"], spatial=0), {"x": f32(2, 3)},
                               {"s": f32(3), "b": f32(3), "m": f32(3), "v": np.abs(f32(3))}),
    "resize both ways": (10, node("Resize", ["x", "s"]), {"x": SQUARE}, {"s": np.array([1, 1, 2, 0.5], np.float32)}),
    "resize by an input": (10, node("Resize", ["x", "s"]), {"x": SQUARE, "s": np.array([1, 1, 2, 2], np.float32)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_what_has_no_exact_counterpart_keeps_its_opset_and_says_why(name: str) -> None:
    opset, made, inputs, weights = KEPT[name]
    before = typed(legacy(opset, [made], inputs, weights=weights), {})

    model = Onnx().load(before)

    assert model.opset_imports[""] == opset
    assert model.metadata_props[NOTE].startswith(f"kept at opset {opset}: {made.op_type} (n)")
    np.testing.assert_allclose(
        run_ort(ir.to_proto(model), inputs)[0], run_ort(before, inputs)[0], 1e-6
    )


def test_a_model_at_18_or_above_is_left_at_its_opset() -> None:
    for opset in (18, 21, onnx.defs.onnx_opset_version()):
        proto = typed(legacy(opset, [node("Relu", ["x"])], {"x": X}), {})

        assert Onnx().load(proto).opset_imports[""] == opset


def test_names_weights_and_outputs_survive_the_uplift() -> None:
    weight = f32(64, 3, 5, 5)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[5, 5], pads=[2] * 4),
        helper.make_node("Softmax", ["c"], ["y"], name="probabilities", axis=1),
    ]
    model = Onnx().load(typed(legacy(9, nodes, {"x": X}, weights={"w": weight}), {}))

    assert [v.name for v in model.graph.outputs] == ["y"]
    names = [n.name for n in model.graph]
    assert names[0] == "conv"
    assert "probabilities" in names
    assert {n.metadata_props["autoglm.source"] for n in model.graph} == {"conv", "probabilities"}
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), weight)
