"""Cases with their own formulas: casts, constants, and what engines are known to get wrong."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

from autoglm.testing.cases import Case, dynamic
from autoglm.testing.generate import DTYPES, FLOATS, versions

if TYPE_CHECKING:
    import onnx


def special() -> Iterator[Case]:
    """All of them, in a fixed order."""
    yield from _casts()
    yield from _constants()
    yield from _filled()
    yield from _infinite()
    yield from _lengths()
    yield _four_bit_product()


def _model(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], opset: int, weights: Any = ()
) -> bytes:
    import onnx

    def info(name: str, array: Any) -> onnx.ValueInfoProto:
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        return onnx.helper.make_tensor_value_info(name, kind, array.shape)

    feeds, results = ([info(n, a) for n, a in pairs] for pairs in (inputs, outputs))
    graph = onnx.helper.make_graph(nodes, "case", feeds, results, list(weights))
    imports = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=imports)
    model.ir_version = max(8, onnx.helper.find_min_ir_version_for(imports))
    return bytes(model.SerializeToString(deterministic=True))


def _array(values: Any, dtype: str) -> Any:
    import ml_dtypes  # noqa: F401 - registers bfloat16 by name
    import numpy as np

    return np.array(values).astype(np.dtype(dtype))


def _casts() -> Iterator[Case]:
    import onnx

    known = versions("Cast")
    for since in (known[0], known[-1]):
        for source in DTYPES:
            for target in DTYPES:
                x, y = _array([[0, 1, 2], [1, 3, 0]], source), None
                y = x.astype(_array(0, target).dtype)
                to = onnx.helper.np_dtype_to_tensor_dtype(y.dtype)
                node = onnx.helper.make_node("Cast", ["x"], ["y"], "Cast", to=to)
                model = _model([node], [("x", x)], [("y", y)], since)
                yield Case(f"Cast@{since}:{source}:{target}", model, (((x,), (y,)),))


def _constants() -> Iterator[Case]:
    import onnx

    known = versions("Constant")
    for since in known:
        for dtype in DTYPES if since in (known[0], known[-1]) else ("float32", "int64"):
            value = _array([0, 1, 2], dtype)
            tensor = onnx.numpy_helper.from_array(value, "value")
            node = onnx.helper.make_node("Constant", [], ["y"], "Constant", value=tensor)
            yield Case(
                f"Constant@{since}:{dtype}",
                _model([node], [], [("y", value)], since),
                (((), (value,)),),
            )


def _filled() -> Iterator[Case]:
    import numpy as np
    import onnx

    known = versions("ConstantOfShape")
    for since in known:
        for dtype in DTYPES if since in (known[0], known[-1]) else ("float32", "int64"):
            wanted, shape = _array(np.full((2, 3), 1), dtype), np.array([2, 3], np.int64)
            tensor = onnx.numpy_helper.from_array(wanted.reshape(-1)[:1], "value")
            node = onnx.helper.make_node("ConstantOfShape", ["x"], ["y"], "Fill", value=tensor)
            model = _model([node], [("x", shape)], [("y", wanted)], since)
            yield Case(f"ConstantOfShape@{since}:{dtype}", model, (((shape,), (wanted,)),))


def _infinite() -> Iterator[Case]:
    """Rows of nothing but infinity, as a mask leaves them: the answer is infinite."""
    import numpy as np
    import onnx

    for op, sign, pick in (("ReduceMax", -np.inf, np.max), ("ReduceMin", np.inf, np.min)):
        for since in versions(op):
            for dtype, shape, keep in product(
                FLOATS, ((3,), (2, 3), (2, 2, 3), (1, 2, 2, 3)), (0, 1)
            ):
                wide = np.full(shape, sign)
                wide.reshape(-1)[0] = sign if len(shape) == 1 else 1
                x = _array(wide, dtype)
                y = _array(pick(wide, axis=-1, keepdims=bool(keep)), dtype)
                node = onnx.helper.make_node(op, ["x", "axes"], ["y"], op, keepdims=keep)
                axes = [onnx.numpy_helper.from_array(np.array([len(shape) - 1]), "axes")]
                model = _model([node], [("x", x)], [("y", y)], since, axes)
                name = f"{op}_infinite_{len(shape)}d_{keep}@{since}:{dtype}"
                yield Case(name, model, (((x,), (y,)),))


def _lengths() -> Iterator[Case]:
    """Sequences of unequal length: an engine that ignores `sequence_lens` answers without an
    error.
    """
    for op, gates, states in (("LSTM", 4, 2), ("GRU", 3, 1), ("RNN", 1, 1)):
        for direction, count in (("forward", 1), ("bidirectional", 2)):
            for since in versions(op):
                case = _recurrent(op, since, gates, states, direction, count)
                yield case
                moved = dynamic(case)
                if moved is not None:
                    yield moved


def _recurrent(op: str, since: int, gates: int, states: int, direction: str, count: int) -> Case:
    import numpy as np
    import onnx

    rng = np.random.default_rng(7)
    shapes = ((4, 2, 3), (count, gates * 5, 3), (count, gates * 5, 5), (count, gates * 10))
    x, *weights = (rng.uniform(-1, 1, s).astype(np.float32) for s in shapes)
    lengths = np.array([4, 2], np.int32)
    outputs = ["y", "h", "c"][: 1 + states]
    plain, named = (
        onnx.helper.make_node(op, names, outputs, op, hidden_size=5, direction=direction)
        for names in (["x", *"wrb"], ["x", *"wrb", "lengths"])
    )
    wanted = _one_by_one(plain, since, x, weights, lengths)
    held = [onnx.numpy_helper.from_array(a, n) for n, a in zip("wrb", weights, strict=True)]
    results = list(zip(outputs, wanted, strict=True))
    model = _model([named], [("x", x), ("lengths", lengths)], results, since, held)
    return Case(f"{op}_lengths_{direction}@{since}:float32", model, (((x, lengths), wanted),))


def _one_by_one(
    node: onnx.NodeProto, since: int, x: Any, weights: list[Any], lengths: Any
) -> tuple[Any, ...]:
    """Each sequence alone, cut to its length, in float64: no lengths are needed then."""
    import numpy as np
    import onnx
    from onnx.reference import ReferenceEvaluator

    wide = [a.astype(np.float64) for a in weights]
    held = [onnx.numpy_helper.from_array(a, n) for n, a in zip("wrb", wide, strict=True)]
    count, size = weights[1].shape[0], weights[1].shape[2]
    y = np.zeros((x.shape[0], count, x.shape[1], size))
    states = [np.zeros((count, x.shape[1], size)) for _ in node.output[1:]]
    for b, length in enumerate(lengths):
        part = x[:length, b : b + 1].astype(np.float64)
        edges = [(o, part) for o in node.output]
        model = onnx.load_model_from_string(_model([node], [("x", part)], edges, since, held))
        found = ReferenceEvaluator(model).run(None, {"x": part})
        y[:length, :, b : b + 1] = found[0]
        for state, value in zip(states, found[1:], strict=True):
            state[:, b : b + 1] = value
    return tuple(a.astype(np.float32) for a in (y, *states))


def _four_bit_product() -> Case:
    """int4 weights, dequantised and multiplied: exact in float32 unless the engine quantises the
    other side too.
    """
    import ml_dtypes
    import numpy as np
    import onnx

    rng = np.random.default_rng(11)
    x = rng.uniform(-1, 1, (4, 64)).astype(np.float32)
    q = rng.integers(-8, 8, (64, 32)).astype(ml_dtypes.int4)
    scale = rng.uniform(0.01, 0.1, (2, 32)).astype(np.float32)
    weight = q.astype(np.float64) * np.repeat(scale.astype(np.float64), 32, axis=0)
    y = (x.astype(np.float64) @ weight).astype(np.float32)
    dequantize = onnx.helper.make_node(
        "DequantizeLinear", ["q", "s"], ["w"], "Dequantize", axis=0, block_size=32
    )
    product = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "MatMul")
    weights = [onnx.numpy_helper.from_array(a, n) for n, a in (("q", q), ("s", scale))]
    model = _model([dequantize, product], [("x", x)], [("y", y)], 21, weights)
    return Case("DequantizeLinear+MatMul:int4", model, (((x,), (y,)),))
