"""FLOPs and bytes of one node, by operator family; each formula is its function's docstring."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autoglm.spec import NodeFacts, ValueFacts

Shape = tuple[int, ...]
Dims = Callable[[ValueFacts], Shape]  # concrete dimensions of a value


@dataclass(frozen=True, slots=True)
class Work:
    """What one run of a node computes and moves."""

    flops: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    dtype: str = "float32"  # the widest input's, which decides the rate
    gemm: bool = False  # runs at the rate of matrix products
    # What it does besides, one after the other: a recurrence's steps, or the elements that a
    # transposed convolution adds up.
    rounds: float = 0.0


_BITS = {
    "bool": 8,
    "string": 256,  # a guess: an object and a short text
    "int4": 4,
    "uint4": 4,
    "int2": 2,
    "uint2": 2,
    "float4_e2m1fn": 4,
    "int8": 8,
    "uint8": 8,
    "int16": 16,
    "uint16": 16,
    "float16": 16,
    "bfloat16": 16,
    "int64": 64,
    "uint64": 64,
    "float64": 64,
    "complex64": 64,
    "complex128": 128,
}


def value_bytes(dtype: str, shape: Shape) -> int:
    """Bytes of a dense tensor; 4-bit elements are packed, unknown dtypes count 4 bytes."""
    bits = 8 if dtype.startswith("float8") else _BITS.get(dtype, 32)
    return (math.prod(shape) * bits + 7) // 8


def work_of(node: NodeFacts, dims: Dims, *, trips: int = 1) -> Work:
    """One node; If / Loop / Scan are their bodies' sum, times `trips`."""
    if node.body:
        return _body(node, dims, trips)
    name = node.op.rpartition("::")[2]
    inputs = [None if v is None else dims(v) for v in node.inputs]
    outputs = [dims(v) for v in node.outputs]
    facts = Facts(node, inputs, outputs)
    formula = _GEMM.get(name)
    if formula is not None:
        flops = formula(facts)
    else:
        flops = _VECTOR.get(name, _pointwise)(facts)
    read, written = _traffic(name, facts)
    rounds = _ROUNDS[name](facts) if name in _ROUNDS else 0.0
    return Work(flops, read, written, _dtype(node), formula is not None, rounds)


@dataclass(frozen=True, slots=True)
class Facts:
    """A node with every dimension known."""

    node: NodeFacts
    inputs: Sequence[Shape | None]
    outputs: Sequence[Shape]

    def input(self, index: int) -> Shape:
        """Shape of one input; () where it was left out."""
        shape = self.inputs[index] if index < len(self.inputs) else None
        return shape or ()

    def output(self) -> Shape:
        """Shape of the first output."""
        return self.outputs[0] if self.outputs else ()

    def number(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self.node.attributes.get(name, default))


def _body(node: NodeFacts, dims: Dims, trips: int) -> Work:
    # Nested bodies are flattened into node.body, so a nested If counts through its own nodes.
    parts = [work_of(n, dims) for n in node.body if not n.body]
    widest = max(parts, key=lambda w: w.flops, default=Work())
    return Work(
        trips * sum(w.flops for w in parts),
        trips * sum(w.bytes_read for w in parts),
        trips * sum(w.bytes_written for w in parts),
        widest.dtype,
        widest.gemm,
        trips * sum(w.rounds for w in parts),
    )


def _dtype(node: NodeFacts) -> str:
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.dtype:
            return "int8" if value.dtype == "uint8" else value.dtype
    return "float32"


def _traffic(name: str, f: Facts) -> tuple[int, int]:
    """Inputs read and outputs written once; views move nothing, gathers read what they give."""
    if name in _VIEWS:
        return 0, 0
    written = sum(value_bytes(v.dtype, s) for v, s in zip(f.node.outputs, f.outputs, strict=True))
    read = sum(
        value_bytes(v.dtype, s)
        for v, s in zip(f.node.inputs, f.inputs, strict=True)
        if v is not None and s is not None
    )
    if name in _GATHERS:
        read = min(read, written + sum(map(math.prod, f.outputs)) * 8)
    return read, written


def _pointwise(f: Facts) -> float:
    """|out|"""
    return float(sum(map(math.prod, f.outputs)))


def _costly(f: Facts) -> float:
    """10 |out|: a transcendental function is about ten operations"""
    return 10.0 * math.prod(f.output())


def _normal(f: Facts) -> float:
    """8 |in|: mean, variance, scale; or maximum, exponential, sum, division"""
    return 8.0 * math.prod(f.input(0))


def _reduce(f: Facts) -> float:
    """|in|"""
    return float(math.prod(f.input(0)))


def _sort(f: Facts) -> float:
    """|in| log2 |in|"""
    size = math.prod(f.input(0))
    return size * math.log2(max(size, 2))


def _pool(f: Facts) -> float:
    """|out| kernel elements"""
    kernel = f.node.attributes.get("kernel_shape") or f.input(0)[2:]
    return float(math.prod(f.output()) * math.prod(kernel))


def _none(f: Facts) -> float:
    """0: only moves"""
    return 0.0


def _matmul(f: Facts) -> float:
    """2 |out| K, K the last dimension of the first factor"""
    return 2.0 * math.prod(f.output()) * (f.input(0)[-1] if f.input(0) else 1)


def _matmul_nbits(f: Facts) -> float:
    """2 |out| K, K an attribute"""
    return 2.0 * math.prod(f.output()) * f.number("K", 1)


def _gemm(f: Facts) -> float:
    """2 M N K + M N"""
    a = f.input(0)
    k = (a[0] if f.number("transA", 0) else a[-1]) if a else 1
    return math.prod(f.output()) * (2.0 * k + 1)


def _conv(weight: int) -> Callable[[Facts], float]:
    def formula(f: Facts) -> float:
        """2 |out| (channels in / group) kernel elements"""
        return 2.0 * math.prod(f.output()) * math.prod(f.input(weight)[1:])

    return formula


def _conv_transpose(f: Facts) -> float:
    """2 |in| (channels out / group) kernel elements"""
    return 2.0 * math.prod(f.input(0)) * math.prod(f.input(1)[1:])


def _recurrent(gates: int) -> Callable[[Facts], float]:
    def formula(f: Facts) -> float:
        """2 sequence batch directions gates H (I + H)"""
        steps = math.prod(f.input(0)[:2])
        weight, again = math.prod(f.input(1)), math.prod(f.input(2))
        if not weight:
            return 2.0 * steps * gates
        return 2.0 * steps * (weight + again)

    return formula


def _steps(f: Facts) -> float:
    """sequence x directions"""
    return float(math.prod((*f.input(0)[:1], *f.input(1)[:1])))


def _columns(f: Facts) -> float:
    """|in| / channels in x (channels out / group) kernel elements"""
    return math.prod(f.input(0)) / max(f.input(1)[0], 1) * math.prod(f.input(1)[1:])


def _attention(f: Facts) -> float:
    """4 |Q| keys: Q K^T and the product with V"""
    keys = f.input(1)[-2] if len(f.input(1)) >= 2 else 1
    return 4.0 * math.prod(f.input(0)) * keys


def _einsum(f: Facts) -> float:
    """2 x the product of every index's size"""
    terms = (
        str(f.node.attributes.get("equation", "")).replace(" ", "").partition("->")[0].split(",")
    )
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, f.inputs, strict=False):
        if "..." not in term and shape is not None and len(shape) == len(term):
            sizes.update(zip(term, shape, strict=True))
    return 2.0 * max(math.prod(sizes.values()), math.prod(f.output()))


def _dft(f: Facts) -> float:
    """5 |out| log2 |out|"""
    size = math.prod(f.output())
    return 5.0 * size * math.log2(max(size, 2))


def _each(names: str, formula: Callable[[Facts], float]) -> dict[str, Callable[[Facts], float]]:
    return dict.fromkeys(names.split(), formula)


_GEMM: Mapping[str, Callable[[Facts], float]] = {
    **_each("MatMul MatMulInteger QLinearMatMul FusedMatMul DynamicQuantizeMatMul", _matmul),
    **_each("MatMulNBits", _matmul_nbits),
    **_each("Gemm FusedGemm QGemm", _gemm),
    **_each("Conv ConvInteger FusedConv DeformConv", _conv(1)),
    **_each("QLinearConv", _conv(3)),
    **_each("ConvTranspose", _conv_transpose),
    **_each("LSTM", _recurrent(4)),
    **_each("GRU", _recurrent(3)),
    **_each("RNN", _recurrent(1)),
    **_each("Attention MultiHeadAttention GroupQueryAttention", _attention),
    **_each("Einsum", _einsum),
}

_VECTOR: Mapping[str, Callable[[Facts], float]] = {
    **_each(
        "Acos Acosh Asin Asinh Atan Atanh Cos Cosh Erf Exp Log Pow Sigmoid Sin Sinh Softplus Tan "
        "Tanh Gelu FastGelu QuickGelu BiasGelu Mish Swish Elu Selu Celu Softsign RandomNormal "
        "RandomNormalLike",
        _costly,
    ),
    **_each(
        "Softmax LogSoftmax Hardmax LayerNormalization SkipLayerNormalization RMSNormalization "
        "SimplifiedLayerNormalization InstanceNormalization GroupNormalization BatchNormalization "
        "LpNormalization MeanVarianceNormalization LRN RotaryEmbedding SoftmaxCrossEntropyLoss",
        _normal,
    ),
    **_each(
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
        "ReduceSum ReduceSumSquare ArgMax ArgMin "
        "GlobalAveragePool GlobalMaxPool GlobalLpPool CumSum NonZero",
        _reduce,
    ),
    **_each("TopK Unique NonMaxSuppression", _sort),
    **_each("AveragePool MaxPool LpPool RoiAlign MaxRoiPool Col2Im", _pool),
    **_each("DFT STFT", _dft),
    **_each("Resize Upsample GridSample AffineGrid", _normal),
    **_each(
        "Reshape Squeeze Unsqueeze Flatten Identity Shape Size Constant Transpose Concat Split "
        "Slice Gather GatherElements GatherND ScatterElements ScatterND Pad Tile Expand "
        "DepthToSpace SpaceToDepth ConstantOfShape Cast CastLike "
        "ReverseSequence Compress OneHot EyeLike",
        _none,
    ),
}

_ROUNDS: Mapping[str, Callable[[Facts], float]] = {
    **_each("LSTM GRU RNN", _steps),
    **_each("ConvTranspose", _columns),
}

_VIEWS = frozenset(
    ["Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape", "Size", "Constant"]
)
_GATHERS = frozenset(["Gather", "GatherElements", "GatherND", "Slice", "Split", "Compress"])
