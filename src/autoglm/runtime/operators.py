"""How far operators of the CPU engine are from the roofline on this machine: one timed call each.

A roofline knows FLOPs and bytes; it does not know that a pooling window is walked in scalar code or
that a transposition misses the cache. What is not listed here runs at the roofline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoglm.catalog.roofline import Machine, node_seconds
from autoglm.catalog.work import work_of
from autoglm.spec import NodeFacts, ValueFacts

if TYPE_CHECKING:
    import onnx

_OPSET = 17
_LEAST, _MOST = 0.1, 1000.0  # factors beyond these are noise
_IMAGE, _ROWS = (1, 32, 64, 64), (256, 512)


@dataclass(frozen=True, slots=True)
class Probe:
    """One call of `op`, which stands for `others` too: a tuple is the shape of a float input, a
    list an integer weight.
    """

    op: str
    inputs: tuple[tuple[int, ...] | list[int], ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    others: str = ""
    weights: tuple[int, ...] = ()  # which float inputs are weights


_CHANNEL = (32,)
PROBES = (
    Probe("Add", (_ROWS, _ROWS), others="Sub Mul Div Max Min Mean Sum"),
    Probe("Relu", (_ROWS,), others="Abs Neg Clip LeakyRelu PRelu Floor Ceil Round Sign"),
    Probe("Erf", (_ROWS,), others="Gelu"),
    Probe("Tanh", (_ROWS,)),
    Probe("Exp", (_ROWS,), others="Log Softplus"),
    Probe("Sqrt", (_ROWS,), others="Reciprocal"),
    Probe("Sin", (_ROWS,), others="Cos Tan Asin Acos Atan Sinh Cosh"),
    Probe("HardSwish", (_ROWS,), others="HardSigmoid"),
    Probe("Softmax", (_ROWS,), {"axis": -1}, "LogSoftmax"),
    Probe(
        "LayerNormalization",
        (_ROWS, _ROWS[1:], _ROWS[1:]),
        {"axis": -1},
        "RMSNormalization",
        (1, 2),
    ),
    Probe(
        "InstanceNormalization",
        (_IMAGE, _CHANNEL, _CHANNEL),
        {},
        "GroupNormalization MeanVarianceNormalization",
        (1, 2),
    ),
    Probe("LRN", (_IMAGE,), {"size": 5}),
    Probe(
        "ReduceMean",
        (_ROWS,),
        {"axes": [-1], "keepdims": 1},
        "ReduceSum ReduceMax ReduceMin ReduceProd",
    ),
    Probe("ReduceL2", (_ROWS,), {"axes": [-1]}, "ReduceL1 ReduceSumSquare"),
    Probe("GlobalAveragePool", (_IMAGE,), {}, "GlobalMaxPool"),
    Probe("MaxPool", (_IMAGE,), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    Probe("AveragePool", (_IMAGE,), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    Probe("Conv", (_IMAGE, (32, 32, 3, 3)), {"pads": [1, 1, 1, 1]}, weights=(1,)),
    Probe("ConvTranspose", (_IMAGE, (32, 32, 2, 2)), {"strides": [2, 2]}, weights=(1,)),
    Probe("Gemm", ((64, 512), (512, 512), (512,)), {}, weights=(1, 2)),
    Probe(
        "LSTM", ((64, 1, 256), (1, 512, 256), (1, 512, 128)), {"hidden_size": 128}, weights=(1, 2)
    ),
    Probe(
        "GRU", ((64, 1, 256), (1, 384, 256), (1, 384, 128)), {"hidden_size": 128}, weights=(1, 2)
    ),
    Probe(
        "RNN", ((64, 1, 256), (1, 128, 256), (1, 128, 128)), {"hidden_size": 128}, weights=(1, 2)
    ),
    Probe("GridSample", ((1, 16, 64, 64), (1, 64, 64, 2))),
    Probe("DFT", ((16, 256, 1),), {"axis": 1}, "STFT"),
    Probe("DepthToSpace", (_IMAGE,), {"blocksize": 2}, "SpaceToDepth"),
    Probe("Transpose", ((8, 64, 256),), {"perm": [0, 2, 1]}),
    Probe("Concat", (_ROWS, _ROWS), {"axis": 1}),
    Probe("Slice", (_ROWS, [0], [128], [1])),
    Probe("Split", (_ROWS,), {"axis": 1}),
    Probe("Gather", (_ROWS, list(range(0, 256, 2))), {"axis": 0}),
    Probe("GatherElements", ((512,), list(range(512))), {"axis": 0}, "ScatterElements"),
    Probe("Pad", (_IMAGE, [0, 0, 1, 1, 0, 0, 1, 1])),
    Probe("Tile", ((64, 512), [4, 1]), {}, "Expand"),
    Probe("CumSum", (_ROWS, [1])),
    Probe("ArgMax", (_ROWS,), {"axis": -1}, "ArgMin"),
    Probe("TopK", (_ROWS, [16])),
    Probe("Cast", (_ROWS,), {"to": 10}),
    Probe("Trilu", (_ROWS,)),
)


def factors(
    machine: Machine,
    call_of: Callable[[onnx.ModelProto, Mapping[str, Any]], Callable[[], Any]],
    time_of: Callable[[Callable[[], Any]], float],
) -> dict[str, float]:
    """Operator -> its time over the roofline's; one that the engine refuses is left out."""
    found: dict[str, float] = {}
    for probe in PROBES:
        try:
            model, feeds = _model(probe)
            call = call_of(model, feeds)
            facts = _facts(probe, model, feeds, call())
        except Exception:  # an engine of another version may lack an operator; nothing is lost
            continue
        own = time_of(call) - machine.dispatch("onnxruntime")
        roof = node_seconds(work_of(facts, _dims), machine, precision="fp32")
        factor = min(max(own / max(roof - machine.node_s, 1e-9), _LEAST), _MOST)
        found.update(dict.fromkeys((probe.op, *probe.others.split()), round(factor, 3)))
    return found


def _dims(value: ValueFacts) -> tuple[int, ...]:
    return tuple(d for d in value.shape or () if isinstance(d, int))


def _model(probe: Probe) -> tuple[onnx.ModelProto, dict[str, Any]]:
    import numpy as np
    from onnx import helper, numpy_helper

    draw = np.random.default_rng(0)
    names, feeds, weights, inputs = [], {}, [], []
    for place, given in enumerate(probe.inputs):
        name = f"i{place}"
        names.append(name)
        if isinstance(given, list):
            # CumSum's axis is the one integer that must be 0-d.
            array = np.array(given[0] if probe.op == "CumSum" else given, np.int64)
        else:
            array = (0.5 * draw.standard_normal(given)).astype(np.float32)
        if isinstance(given, list) or place in probe.weights:
            weights.append(numpy_helper.from_array(array, name))
            continue
        feeds[name] = np.abs(array) if probe.op == "Sqrt" else array
        inputs.append(helper.make_tensor_value_info(name, 1, array.shape))
    outputs = ["o0", "o1"] if probe.op in ("TopK", "Split") else ["o0"]
    node = helper.make_node(probe.op, names, outputs, **probe.attributes)
    shown = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], "probe", inputs, shown, weights)
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8), feeds


def _facts(
    probe: Probe, model: onnx.ModelProto, feeds: Mapping[str, Any], results: list[Any]
) -> NodeFacts:
    from onnx import numpy_helper

    arrays = {**{w.name: numpy_helper.to_array(w) for w in model.graph.initializer}, **feeds}
    inputs = tuple(
        ValueFacts(str(arrays[n].dtype), arrays[n].shape, n not in feeds)
        for n in model.graph.node[0].input
    )
    outputs = tuple(ValueFacts(str(r.dtype), r.shape) for r in results)
    return NodeFacts("probe", probe.op, _OPSET, inputs, outputs, dict(probe.attributes))
