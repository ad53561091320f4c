"""How far operators of the CPU engine are from the roofline on this machine: one timed call each.

A roofline knows FLOPs and bytes; it does not know that a pooling window is walked in scalar code or
that a transposition misses the cache. What is not listed here runs at the roofline. Operators that
do something besides their products, step by step, take a second call that is mostly that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    rounds: Probe | None = None  # the same operator with many rounds for its FLOPs


def _recurrent(op: str, gates: int) -> Probe:
    def of(steps: int, inside: int, hidden: int, rounds: Probe | None = None) -> Probe:
        rows = gates * hidden
        inputs = ((steps, 1, inside), (1, rows, inside), (1, rows, hidden))
        return Probe(op, inputs, {"hidden_size": hidden}, weights=(1, 2), rounds=rounds)

    return of(128, 256, 64, of(128, 32, 16))


def _upward(channels: int, rounds: Probe | None = None) -> Probe:
    inputs = ((1, channels, 64, 64), (channels, 32, 2, 2))
    return Probe("ConvTranspose", inputs, {"strides": [2, 2]}, weights=(1,), rounds=rounds)


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
    _upward(64, _upward(4)),
    Probe("Gemm", ((64, 512), (512, 512), (512,)), {}, weights=(1, 2)),
    _recurrent("LSTM", 4),
    _recurrent("GRU", 3),
    _recurrent("RNN", 1),
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


_ROUNDS = 3  # of timing, apart from one another: a busy moment seldom lasts through all of them


@dataclass(frozen=True, slots=True)
class _Timed:
    """What the roofline says of one call (without the engine's step), its rounds, and the call."""

    roof_s: float
    rounds: float
    call: Callable[[], Any]


def factors(
    machine: Machine,
    call_of: Callable[[onnx.ModelProto, Mapping[str, Any]], Callable[[], Any]],
    time_of: Callable[[Callable[[], Any]], float],
) -> tuple[dict[str, float], dict[str, float]]:
    """Operator -> its time over the roofline's, and -> seconds of one of its rounds; one that the
    engine refuses is left out.
    """
    ready: list[tuple[Probe, tuple[_Timed, ...]]] = []
    for probe in PROBES:
        try:
            calls = [_timed(p, machine, call_of) for p in (probe, probe.rounds) if p is not None]
        except Exception:  # an engine of another version may lack an operator; nothing is lost
            continue
        ready.append((probe, tuple(calls)))
    best: dict[_Timed, float] = {}
    for _ in range(_ROUNDS):
        for timed in (t for _, calls in ready for t in calls):
            best[timed] = min(time_of(timed.call), best.get(timed, float("inf")))
    found, rounds = {}, {}
    for probe, timed_calls in ready:
        own = [max(best[t] - machine.dispatch("onnxruntime"), 0.0) for t in timed_calls]
        factor, round_s = _solved(timed_calls, own)
        found.update(dict.fromkeys((probe.op, *probe.others.split()), round(factor, 3)))
        if round_s:
            rounds[probe.op] = round_s
    return found, rounds


def _timed(
    probe: Probe,
    machine: Machine,
    call_of: Callable[[onnx.ModelProto, Mapping[str, Any]], Callable[[], Any]],
) -> _Timed:
    model, feeds = _model(probe)
    call = call_of(model, feeds)
    work = work_of(_facts(probe, model, feeds, call()), _dims)
    roof = node_seconds(work, machine, precision="fp32") - machine.node_s
    return _Timed(max(roof, 1e-9), work.rounds, call)


def _solved(calls: Sequence[_Timed], own: Sequence[float]) -> tuple[float, float]:
    """The factor, and the seconds of a round, that give these times; never less than nothing."""
    first, last = calls[0], calls[-1]
    factor, round_s = own[0] / first.roof_s, 0.0
    if len(calls) > 1:
        apart = first.roof_s * last.rounds - last.roof_s * first.rounds
        factor = min(factor, (own[0] * last.rounds - own[1] * first.rounds) / apart)
    factor = min(max(factor, _LEAST), _MOST)
    if len(calls) > 1:
        round_s = max(0.0, own[1] - factor * last.roof_s) / last.rounds
    return factor, round_s


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
