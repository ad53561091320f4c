"""The table of generated cases: per operator, how it is used. The first row of an operator runs
with every dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from autoglm.testing.generate import DTYPES, FLOATS, INTEGERS, Constant, Inputs, Maker, Spec

Make = Callable[[Maker], Inputs]


def _rows(
    op: str, inputs: Make, *variants: tuple[str, Make | None, Mapping[str, Any]], **attributes: Any
) -> Iterator[Spec]:
    yield Spec(op, inputs, attributes)
    for tag, make, extra in variants:
        yield Spec(op, make or inputs, {**attributes, **extra}, tag=tag)


def _one(m: Maker) -> Inputs:
    return [m.n(2, 3)]


def _image(m: Maker) -> Inputs:
    return [m.n(1, 2, 6, 6)]


def _line(m: Maker) -> Inputs:
    return [m.n(1, 2, 7)]


def _volume(m: Maker) -> Inputs:
    return [m.n(1, 2, 5, 5, 5)]


def _positive(m: Maker) -> Inputs:
    return [m.p(2, 3)]


def _inside(m: Maker) -> Inputs:
    return [m.u(2, 3)]


_PLAIN = [
    "Abs",
    "Neg",
    "Sign",
    "Exp",
    "Sin",
    "Cos",
    "Tan",
    "Sinh",
    "Cosh",
    "Tanh",
    "Asinh",
    "Atan",
    "Erf",
    "Sigmoid",
    "Relu",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Celu",
    "Softplus",
    "Softsign",
    "HardSigmoid",
    "HardSwish",
    "Mish",
    "Gelu",
    "ThresholdedRelu",
    "Ceil",
    "Floor",
    "Round",
    "IsNaN",
    "IsInf",
    "Not",
    "BitwiseNot",
    "Identity",
    "Swish",
    "Shape",
    "Size",
    "NonZero",
    "Dropout",
    "Softmax",
    "LogSoftmax",
    "Hardmax",
    "Transpose",
    "Flatten",
]
_UNIQUE_ORDER = ["ArgMax", "ArgMin"]
_BINARY = [
    "Add",
    "Sub",
    "Mul",
    "Equal",
    "Greater",
    "Less",
    "GreaterOrEqual",
    "LessOrEqual",
    "And",
    "Or",
    "Xor",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "PRelu",
]
_REDUCE = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
]


def _unary() -> Iterator[Spec]:
    for op in _PLAIN:
        yield Spec(op, _one)
        yield Spec(op, lambda m: [m.n(0, 3)], tag="empty")
        yield Spec(op, lambda m: [m.n(2, 3, 2, 2)], tag="4d")
    for op in ("Log", "Sqrt", "Reciprocal"):
        yield Spec(op, _positive)
    for op in ("Asin", "Acos", "Atanh"):
        yield Spec(op, _inside)
    yield Spec("EyeLike", _one)
    yield Spec("Acosh", lambda m: [m.p(2, 3) + m.p(1, 1)])
    yield Spec("Gelu", _one, {"approximate": "tanh"}, tag="tanh")
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        yield Spec(op, _image, {"axis": 1}, tag="axis1")
    yield Spec("Transpose", _image, {"perm": [0, 2, 3, 1]}, tag="nhwc")
    yield Spec("Shape", _image, {"start": 1, "end": 3}, tag="slice")


def _binary() -> Iterator[Spec]:
    for op in _BINARY:
        yield Spec(op, lambda m: [m.n(2, 3), m.n(2, 3)])
        yield Spec(op, lambda m: [m.n(2, 1, 3), m.n(2, 3, 1)] if m.dtype else [], tag="broadcast")
        yield Spec(op, lambda m: [m.n(2, 3), m.scalar(1.5)], tag="scalar")
    for op in ("Div", "Mod"):
        only = DTYPES if op == "Div" else INTEGERS
        yield Spec(op, lambda m: [m.n(2, 3), m.p(2, 3)], dtypes=only)
        yield Spec(op, lambda m: [m.n(2, 3), m.p(3)], tag="broadcast", dtypes=only)
    yield Spec("Mod", lambda m: [m.n(2, 3), m.p(2, 3)], {"fmod": 1}, tag="fmod", dtypes=FLOATS)
    yield from _rows(
        "Pow", lambda m: [m.p(2, 3), m.p(2, 3)], ("square", lambda m: [m.p(2, 3), m.scalar(2)], {})
    )
    for direction in ("LEFT", "RIGHT"):
        tag = "" if direction == "LEFT" else "right"
        yield Spec("BitShift", lambda m: [m.p(2, 3), m.p(2, 3)], {"direction": direction}, tag=tag)
    for op in ("Max", "Min", "Mean", "Sum"):
        yield from _rows(
            op,
            lambda m: [m.n(2, 3), m.n(2, 3)],
            ("three", lambda m: [m.n(2, 3), m.n(3), m.n(1, 1)], {}),
            ("one", _one, {}),
        )
    yield from _rows(
        "Where",
        lambda m: [m.b(2, 3), m.n(2, 3), m.n(2, 3)],
        ("broadcast", lambda m: [m.b(2, 1), m.n(2, 3), m.scalar(0)], {}),
    )
    yield from _rows(
        "Clip",
        lambda m: [m.n(2, 3), m.scalar(0), m.scalar(1)],
        ("low", lambda m: [m.n(2, 3), m.scalar(0)], {}),
        ("high", lambda m: [m.n(2, 3), None, m.scalar(1)], {}),
        ("computed", lambda m: [m.n(2, 3), m.n(1)[0], m.p(1)[0]], {}),
    )


def _products() -> Iterator[Spec]:
    yield from _rows(
        "MatMul",
        lambda m: [m.n(3, 4), m.n(4, 5)],
        ("weight", lambda m: [m.n(3, 4), Constant(m.n(4, 5))], {}),
        ("batched", lambda m: [m.n(2, 3, 4), m.n(2, 4, 5)], {}),
        ("vector", lambda m: [m.n(4), m.n(4, 5)], {}),
        ("heads", lambda m: [m.n(1, 2, 3, 4), m.n(1, 2, 4, 3)], {}),
    )

    def full(m: Maker) -> Inputs:
        return [m.n(3, 4), m.n(4, 5), m.n(5)]

    yield from _rows(
        "Gemm",
        full,
        (
            "transposed",
            lambda m: [m.n(4, 3), Constant(m.n(5, 4)), Constant(m.n(5))],
            {"transA": 1, "transB": 1},
        ),
        ("scaled", full, {"alpha": 0.5, "beta": 0.25}),
        ("bare", lambda m: [m.n(3, 4), m.n(4, 5)], {}),
        (
            "classifier",
            lambda m: [m.n(1, 16), Constant(m.n(5, 16)), Constant(m.n(5))],
            {"transB": 1},
        ),
    )
    yield Spec("Einsum", lambda m: [m.n(2, 3, 4), m.n(2, 4, 5)], {"equation": "bij,bjk->bik"})
    yield Spec("Einsum", lambda m: [m.n(3, 4)], {"equation": "ij->ji"}, tag="transpose")
    yield Spec("Einsum", lambda m: [m.n(3, 3)], {"equation": "ii->i"}, tag="diagonal")


def _convolutions() -> Iterator[Spec]:
    def w(m: Maker) -> Inputs:
        return [m.n(1, 2, 6, 6), m.n(3, 2, 3, 3)]

    def weight(m: Maker) -> Inputs:
        return [m.n(1, 2, 6, 6), Constant(m.n(3, 2, 3, 3)), Constant(m.n(3))]

    yield from _rows(
        "Conv",
        w,
        ("bias", weight, {}),
        ("strided", weight, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("asymmetric", weight, {"pads": [0, 1, 2, 1]}),
        ("dilated", weight, {"dilations": [2, 2]}),
        ("same_upper", weight, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("same_lower", weight, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
        ("valid", weight, {"auto_pad": "VALID"}),
        ("depthwise", lambda m: [m.n(1, 4, 6, 6), Constant(m.n(4, 1, 3, 3))], {"group": 4}),
        ("grouped", lambda m: [m.n(1, 4, 6, 6), Constant(m.n(6, 2, 3, 3))], {"group": 2}),
        ("1d", lambda m: [m.n(1, 2, 7), Constant(m.n(3, 2, 3))], {}),
        ("3d", lambda m: [m.n(1, 2, 5, 5, 5), Constant(m.n(3, 2, 3, 3, 3))], {}),
    )

    def t(m: Maker) -> Inputs:
        return [m.n(1, 2, 4, 4), Constant(m.n(2, 3, 3, 3))]

    yield from _rows(
        "ConvTranspose",
        t,
        ("strided", t, {"strides": [2, 2], "output_padding": [1, 1]}),
        ("padded", t, {"pads": [1, 1, 1, 1]}),
        ("dilated", t, {"dilations": [2, 2]}),
        ("grouped", lambda m: [m.n(1, 4, 4, 4), Constant(m.n(4, 2, 3, 3))], {"group": 2}),
        ("bias", lambda m: [*t(m), Constant(m.n(3))], {}),
        ("1d", lambda m: [m.n(1, 2, 5), Constant(m.n(2, 3, 3))], {}),
    )


def _pools() -> Iterator[Spec]:
    two = {"kernel_shape": [2, 2], "strides": [2, 2]}
    for op in ("MaxPool", "AveragePool", "LpPool"):
        yield Spec(op, _image, two)
        for tag, make, extra in (
            ("1d", _line, {"kernel_shape": [3]}),
            ("3d", _volume, {"kernel_shape": [2, 2, 2]}),
            ("ceil", _image, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
            ("padded", _image, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
            ("same", _image, {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
            ("dilated", _image, {"kernel_shape": [2, 2], "dilations": [2, 2]}),
        ):
            yield Spec(op, make, extra, tag=tag)
    yield Spec(
        "AveragePool",
        _image,
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        tag="count",
    )
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        yield from _rows(op, _image, ("1d", _line, {}), ("3d", _volume, {}))


def _norms() -> Iterator[Spec]:
    def channels(m: Maker) -> Inputs:
        return [m.n(2, 3, 4, 4), m.p(3), m.n(3), m.n(3), m.p(3)]

    def weights(m: Maker) -> Inputs:
        return [
            m.n(2, 3, 4, 4),
            *(Constant(a) for a in (m.p(3), m.n(3), m.n(3), m.p(3))),
        ]

    yield from _rows("BatchNormalization", channels, ("weights", weights, {}))
    yield from _rows(
        "InstanceNormalization",
        lambda m: [m.n(2, 3, 4, 4), m.p(3), m.n(3)],
        ("1d", lambda m: [m.n(2, 3, 4), Constant(m.p(3)), Constant(m.n(3))], {}),
    )
    yield Spec(
        "GroupNormalization",
        lambda m: [m.n(2, 4, 3, 3), m.p(4), m.n(4)],
        {"num_groups": 2},
        since=21,
    )
    yield from _rows(
        "LayerNormalization",
        lambda m: [m.n(2, 3, 8), m.p(8), m.n(8)],
        ("no_bias", lambda m: [m.n(2, 3, 8), Constant(m.p(8))], {}),
        ("axis1", lambda m: [m.n(2, 3, 8), m.p(3, 8), m.n(3, 8)], {"axis": 1}),
        ("weights", lambda m: [m.n(2, 3, 8), Constant(m.p(8)), Constant(m.n(8))], {}),
    )
    yield from _rows(
        "RMSNormalization",
        lambda m: [m.n(2, 3, 8), m.p(8)],
        ("weights", lambda m: [m.n(2, 3, 8), Constant(m.p(8))], {}),
    )
    yield from _rows("LpNormalization", lambda m: [m.n(2, 3)], ("l1", None, {"p": 1}))
    yield from _rows("LRN", _image, ("wide", lambda m: [m.n(1, 4, 16, 16)], {"size": 5}), size=3)
    yield Spec("MeanVarianceNormalization", _image, dtypes=FLOATS)


def _reductions() -> Iterator[Spec]:
    for op in _REDUCE:
        first: Make = (
            (lambda m: [m.p(2, 3, 4), m.i(1)])
            if "Log" in op
            else (lambda m: [m.n(2, 3, 4), m.i(1)])
        )
        yield from _rows(
            op,
            first,
            ("flat", first, {"keepdims": 0}),
            ("all", lambda m: [m.p(2, 3)], {}),
            ("two", lambda m: [m.p(2, 3, 4), m.i(-1, 0)], {}),
            ("noop", lambda m: [m.p(2, 3)], {"noop_with_empty_axes": 1}),
        )
    for op in _UNIQUE_ORDER:
        yield from _rows(
            op,
            lambda m: [m.distinct(3, 4)],
            ("flat", None, {"axis": 1, "keepdims": 0}),
            ("last", lambda m: [m.n(3, 4)], {"select_last_index": 1}),
        )
    yield Spec("TopK", lambda m: [m.distinct(3, 4), m.i(2)], outputs=2)
    yield Spec(
        "TopK", lambda m: [m.distinct(3, 4), m.i(2)], {"largest": 0, "axis": 0}, 2, "smallest"
    )
    yield from _rows(
        "CumSum",
        lambda m: [m.n(3, 4), Constant(_int(1))],
        ("reverse", None, {"reverse": 1, "exclusive": 1}),
    )


def _int(value: int) -> Any:
    import numpy as np

    return np.array(value, np.int64)


def _shapes() -> Iterator[Spec]:
    yield from _rows(
        "Reshape",
        lambda m: [m.n(2, 6), m.i(3, -1)],
        ("zero", lambda m: [m.n(2, 6), m.i(0, 3, 2)], {}),
        ("empty", lambda m: [m.n(0, 6), m.i(3, 0)], {"allowzero": 1}),
    )
    yield from _rows(
        "Squeeze", lambda m: [m.n(1, 3, 1), m.i(0)], ("all", lambda m: [m.n(1, 3, 1)], {})
    )
    yield Spec("Unsqueeze", lambda m: [m.n(2, 3), m.i(0, -1)])
    yield from _rows(
        "Concat",
        lambda m: [m.n(2, 3), m.n(2, 3)],
        ("three", lambda m: [m.n(1, 3), m.n(2, 3), m.n(3, 3)], {"axis": 0}),
        ("empty", lambda m: [m.n(2, 0), m.n(2, 3)], {}),
        axis=1,
    )
    yield Spec("Split", lambda m: [m.n(2, 6)], {"axis": 1, "num_outputs": 2}, 2)
    yield Spec("Split", lambda m: [m.n(2, 6), m.i(2, 4)], {"axis": 1}, 2, "sizes")
    yield from _rows(
        "Slice",
        lambda m: [m.n(4, 5), m.i(1), m.i(3), m.i(0), m.i(1)],
        ("steps", lambda m: [m.n(4, 5), m.i(0, 4), m.i(4, 0), m.i(0, 1), m.i(2, -1)], {}),
        ("plain", lambda m: [m.n(4, 5), m.i(1, 1), m.i(3, 9)], {}),
    )
    yield from _rows("Expand", lambda m: [m.n(3, 1), m.i(2, 3, 4)])
    yield Spec("Tile", lambda m: [m.n(2, 3), m.i(2, 1)])
    yield from _rows(
        "Pad",
        lambda m: [m.n(3, 4), m.i(1, 0, 0, 2)],
        *((mode, None, {"mode": mode}) for mode in ("reflect", "edge", "wrap")),
        ("value", lambda m: [m.n(3, 4), m.i(1, 0, 0, 2), m.scalar(1)], {}),
        ("axes", lambda m: [m.n(3, 4), m.i(1, 2), m.scalar(1), m.i(1)], {}),
        ("negative", lambda m: [m.n(3, 4), m.i(-1, 0, 0, 2)], {}),
    )
    yield Spec("DepthToSpace", lambda m: [m.n(1, 8, 2, 2)], {"blocksize": 2})
    yield Spec(
        "DepthToSpace", lambda m: [m.n(1, 8, 2, 2)], {"blocksize": 2, "mode": "CRD"}, tag="crd"
    )
    yield Spec("SpaceToDepth", lambda m: [m.n(1, 2, 4, 4)], {"blocksize": 2})
    yield from _rows("Trilu", lambda m: [m.n(3, 4)], ("lower", None, {"upper": 0}))
    yield Spec("Range", lambda m: [m.scalar(0), m.scalar(5), m.scalar(1)])
    yield from _resizes()


def _resizes() -> Iterator[Spec]:
    def scales(m: Maker) -> Inputs:
        return [m.n(1, 2, 4, 4), None, Constant(_floats(1, 1, 2, 2), fixed=True)]

    def sizes(m: Maker) -> Inputs:
        return [m.n(1, 2, 4, 4), None, None, m.i(1, 2, 3, 5)]

    yield Spec("Resize", scales)
    for mode in ("nearest", "linear", "cubic"):
        for transform in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
            extra = {"mode": mode, "coordinate_transformation_mode": transform}
            yield Spec("Resize", scales, extra, tag=f"{mode}_{transform}")
        yield Spec("Resize", sizes, {"mode": mode}, tag=f"{mode}_sizes")
    yield Spec(
        "Resize",
        lambda m: [m.n(1, 2, 4), None, Constant(_floats(1, 1, 2), fixed=True)],
        {"mode": "linear"},
        tag="1d",
    )
    yield Spec(
        "Resize",
        lambda m: [m.n(1, 1, 2, 2, 2), None, Constant(_floats(1, 1, 2, 2, 2), fixed=True)],
        {"mode": "linear"},
        tag="3d",
    )


def _floats(*values: float) -> Any:
    import numpy as np

    return np.array(values, np.float32)


def _indexing() -> Iterator[Spec]:
    yield from _rows(
        "Gather",
        lambda m: [m.n(4, 3), m.i(0, 2, -1)],
        ("axis1", lambda m: [m.n(4, 3), m.i([0, 2], [1, 1])], {"axis": 1}),
        ("scalar", lambda m: [m.n(4, 3), Constant(_int(1))], {}),
        ("computed", lambda m: [m.n(4, 3), m.i(0, 3).array], {}),
    )
    yield Spec("GatherElements", lambda m: [m.n(3, 3), m.i([0, 1, 2], [2, 0, 0])])
    yield from _rows(
        "GatherND",
        lambda m: [m.n(3, 3), m.i([0, 1], [2, 2])],
        ("batch", lambda m: [m.n(2, 3, 2), m.i([1], [0])], {"batch_dims": 1}),
    )

    def elements(m: Maker) -> Inputs:
        return [m.n(3, 3), m.i([0, 1, 2], [2, 0, 1]), m.n(2, 3)]

    def points(m: Maker) -> Inputs:
        return [m.n(4, 3), m.i([0], [2]), m.n(2, 3)]

    ways = tuple((r, None, {"reduction": r}) for r in ("add", "mul", "max", "min"))
    yield from _rows(
        "ScatterElements",
        elements,
        *ways,
        ("axis1", lambda m: [m.n(3, 3), m.i([0, 1], [2, 0], [1, 2]), m.n(3, 2)], {"axis": 1}),
    )
    yield from _rows("ScatterND", points, *ways)
    yield Spec("Compress", lambda m: [m.n(3, 4), Constant(m.b(3))], {"axis": 0})
    yield Spec(
        "ReverseSequence", lambda m: [m.n(4, 3), m.i(1, 2, 4)], {"time_axis": 0, "batch_axis": 1}
    )
    yield Spec("Unique", lambda m: [m.n(6)], {"sorted": 1}, 4)
    yield Spec(
        "OneHot",
        lambda m: [m.p(3), Constant(_int(4)), Constant(_floats(0, 1))],
        dtypes=("int64", "int32"),
    )


def _recurrent() -> Iterator[Spec]:
    for op, gates, outputs in (("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)):
        for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):

            def make(m: Maker, g: int = gates, d: int = count) -> Inputs:
                return [
                    m.n(3, 2, 4),
                    Constant(m.u(d, g * 5, 4)),
                    Constant(m.u(d, g * 5, 5)),
                    Constant(m.u(d, g * 10)),
                ]

            tag = "" if direction == "forward" else direction
            yield Spec(
                op, make, {"hidden_size": 5, "direction": direction}, outputs, tag, dtypes=FLOATS
            )

    def reset(m: Maker) -> Inputs:
        return [
            m.n(3, 2, 4),
            Constant(m.u(1, 15, 4)),
            Constant(m.u(1, 15, 5)),
            Constant(m.u(1, 30)),
        ]

    yield Spec(
        "GRU", reset, {"hidden_size": 5, "linear_before_reset": 1}, 2, "reset", dtypes=FLOATS
    )


SPECS: tuple[Spec, ...] = (
    *_unary(),
    *_binary(),
    *_products(),
    *_convolutions(),
    *_pools(),
    *_norms(),
    *_reductions(),
    *_shapes(),
    *_indexing(),
    *_recurrent(),
)
