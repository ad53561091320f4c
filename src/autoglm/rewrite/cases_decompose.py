"""Seeded models on which the decompositions are proven; one node each."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from autoglm.rewrite.cases import EXACT, SHAPES, Array, Case, Source, case, ints

_MAPS = ((2, 3, 5), (1, 3, 4, 4), (0, 3, 4, 4), (2, 1, 2, 3, 2))
_NUMBERS = ("float32", "float16", "float64", "int32", "int64")
_WHOLE = ("int32", "int64", "int8", "uint8")


def _draw(s: Source, *shape: int) -> Iterator[tuple[Array, bool]]:
    if s.dtype.startswith("float"):
        yield from s.both(*shape)
    else:
        low = 0 if s.dtype.startswith("u") else -9
        yield s.random.integers(low, 10, shape).astype(s.dtype), False


def _each(s: Source, body: str, opset: int = 20, **constants: Array) -> Iterator[Case]:
    for shape in SHAPES:
        for x, edge in _draw(s, *shape):
            yield Case(body, {"x": x}, constants, opset, edge)


@case("BatchNormalization-affine", dtypes=EXACT)
def _batch(s: Source) -> Iterator[Case]:
    for shape in _MAPS:
        known = {k: s.normal(shape[1]) for k in ("a", "b", "m")} | {"v": s.positive(shape[1])}
        for epsilon in (1e-5, 0.2):
            for x, edge in s.both(*shape):
                text = f"y = BatchNormalization<epsilon = {epsilon}>(x, a, b, m, v)"
                yield Case(text, {"x": x}, known, 15, edge)


@case("InstanceNormalization-moments", dtypes=("float32",))
def _instance(s: Source) -> Iterator[Case]:
    for shape in _MAPS[:2]:
        known = {"a": s.positive(shape[1]), "b": s.normal(shape[1])}
        for epsilon in (1e-5, 0.2):
            text = f"y = InstanceNormalization<epsilon = {epsilon}>(x, a, b)"
            yield Case(text, {"x": s.normal(*shape)}, known, 20)


def _pools(kind: str, dtypes: tuple[str, ...]) -> None:
    @case(f"{kind}-reduction", dtypes=dtypes)
    def make(s: Source) -> Iterator[Case]:
        for opset in (13, 20):
            for shape in _MAPS:
                yield Case(f"y = {kind}(x)", {"x": s.normal(*shape)}, {}, opset)


_pools("GlobalAveragePool", ("float32",))
_pools("GlobalMaxPool", ("float32",))


@case("Gemm-matmul", dtypes=EXACT)
def _gemm(s: Source) -> Iterator[Case]:
    for a, b, flags in (
        ((3, 4), (4, 5), ""),
        ((4, 3), (4, 5), "<transA = 1, alpha = 0.5>"),
        ((3, 4), (5, 4), "<transB = 1, beta = 2.0>"),
        ((0, 4), (4, 5), "<alpha = 1.5, beta = 0.5>"),
    ):
        for bias in ((5,), (1,), ()):
            known = {"w": s.normal(*b), "c": s.normal(*bias)}
            yield Case(f"y = Gemm{flags}(x, w, c)", {"x": s.normal(*a)}, known, 20)
        yield Case(f"y = Gemm{flags}(x, w)", {"x": s.normal(*a)}, {"w": s.normal(*b)}, 20)


def _variadic(kind: str, dtypes: tuple[str, ...], exact: bool) -> None:
    @case(f"{kind}-pairs", dtypes=dtypes, exact=exact)
    def make(s: Source) -> Iterator[Case]:
        for shapes in (
            ((2, 3), (2, 3), (2, 3)),
            ((2, 3), (3,), (2, 1)),
            ((0, 3), (1,), (1, 3), ()),
        ):
            for edge in (False, True) if s.dtype.startswith("float") else (False,):
                draw = s.edges if edge else s.normal
                arrays = {f"x{i}": draw(*shape) for i, shape in enumerate(shapes)}
                yield Case(f"y = {kind}({', '.join(arrays)})", arrays, {}, 20, edge)


_variadic("Sum", EXACT, exact=False)
_variadic("Mean", EXACT, exact=False)
_variadic("Max", ("float32", "float64", "int32", "int64"), exact=True)
_variadic("Min", ("float32", "float64", "int32", "int64"), exact=True)


def _blocks(kind: str, modes: tuple[str, ...], opset: int) -> None:
    @case(f"{kind}-reshape", dtypes=("float32",), exact=True)
    def make(s: Source) -> Iterator[Case]:
        shapes = (
            ((1, 2, 4, 6), (2, 1, 2, 2)) if kind == "SpaceToDepth" else ((1, 8, 2, 3), (2, 4, 1, 2))
        )
        for mode in modes:
            for shape in shapes:
                for x, edge in s.both(*shape):
                    yield Case(f"y = {kind}<blocksize = 2{mode}>(x)", {"x": x}, {}, opset, edge)


_blocks("SpaceToDepth", ("",), 20)
_blocks("DepthToSpace", ("", ', mode = "CRD"'), 20)


@case("reshape", dtypes=_NUMBERS, exact=True)
def _reshape(s: Source) -> Iterator[Case]:
    for x, edge in _draw(s, 2, 1, 3):
        yield Case("y = Flatten<axis = 2>(x)", {"x": x}, {}, 20, edge)
        yield Case("y = Squeeze(x, a)", {"x": x}, {"a": ints(1)}, 20, edge)
        yield Case("y = Unsqueeze(x, a)", {"x": x}, {"a": ints(0, -1)}, 20, edge)


@case("Size-product", dtypes=("float32", "int64"), exact=True)
def _size(s: Source) -> Iterator[Case]:
    for opset in (13, 20):
        yield from _each(s, "y = Size(x)", opset)


@case("IsNaN-self-unequal", dtypes=EXACT, exact=True)
def _is_nan(s: Source) -> Iterator[Case]:
    yield from _each(s, "y = IsNaN(x)")


@case("IsInf-equal-infinity", dtypes=EXACT, exact=True)
def _is_inf(s: Source) -> Iterator[Case]:
    for flags in ("", "<detect_negative = 0>", "<detect_positive = 0>"):
        yield from _each(s, f"y = IsInf{flags}(x)")


@case("Neg-times-minus-one", dtypes=("float32", "float64", "int32", "int64"), exact=True)
def _neg(s: Source) -> Iterator[Case]:
    yield from _each(s, "y = Neg(x)")


@case("Sub-add-negative", dtypes=("float32", "float64", "int32", "int64"), exact=True)
def _sub(s: Source) -> Iterator[Case]:
    for shape in ((2, 3), (3,), ()):
        for x, edge in _draw(s, 2, 3):
            other = next(_draw(s, *shape))[0]
            yield Case("y = Sub(x, z)", {"x": x, "z": other}, {}, 20, edge)


@case("Reciprocal-one-over", dtypes=EXACT, exact=True)
def _reciprocal(s: Source) -> Iterator[Case]:
    yield from _each(s, "y = Reciprocal(x)")


@case("Tan-sine-over-cosine", dtypes=("float32",), finite=True, note="near a pole both are huge")
def _tan(s: Source) -> Iterator[Case]:
    for shape in SHAPES:
        yield Case("y = Tan(x)", {"x": s.random.uniform(-1.4, 1.4, shape).astype(s.dtype)})


@case("Relu-max-zero", dtypes=EXACT, exact=True)
def _relu(s: Source) -> Iterator[Case]:
    yield from _each(s, "y = Relu(x)")


@case(
    "Clip-min-max",
    dtypes=("float32", "float64", "int32", "int64"),
    exact=True,
    finite=True,
    note="ONNX Runtime's Clip turns NaN into a bound; the parts keep NaN, as the standard does",
)
def _clip(s: Source) -> Iterator[Case]:
    bounds = {"low": np.asarray(-1).astype(s.dtype), "high": np.asarray(2).astype(s.dtype)}
    yield from _each(s, "y = Clip(x, low, high)", 20, **bounds)
    yield from _each(s, "y = Clip(x, low)", low=bounds["low"])


@case("Greater-swapped", dtypes=("float32", "float64", "int32", "int64"), exact=True)
def _greater(s: Source) -> Iterator[Case]:
    for shape in ((2, 3), (3,), ()):
        for x, edge in _draw(s, 2, 3):
            yield Case("y = Greater(x, z)", {"x": x, "z": next(_draw(s, *shape))[0]}, {}, 20, edge)


@case("CastLike-cast", dtypes=("float32", "float64", "int32"), exact=True)
def _castlike(s: Source) -> Iterator[Case]:
    for kind in ("float16", "float64", "int64", "bool"):
        x = np.asarray(s.random.integers(0, 9, (2, 3))).astype(s.dtype)
        yield Case("y = CastLike(x, z)", {"x": x, "z": np.zeros(1, kind)}, {}, 20)


@case("Pow-multiply", dtypes=EXACT)
def _pow(s: Source) -> Iterator[Case]:
    for power in (2.0, 3.0):
        yield from _each(s, "y = Pow(x, p)", p=s.number(power))


@case("Dropout-identity", dtypes=EXACT, exact=True)
def _dropout(s: Source) -> Iterator[Case]:
    yield from _each(s, "y = Dropout(x)")
    yield from _each(s, "y = Dropout(x, r, t)", r=s.number(0.5), t=np.asarray(False))


def _reductions(kind: str, positive: bool, edges: bool) -> None:
    note = "" if edges else "a NaN or an infinity may move between the parts"

    @case(f"{kind}-reduce-sum", dtypes=("float32",), finite=not edges, note=note)
    def make(s: Source) -> Iterator[Case]:
        for opset in (13, 18, 20):
            for shape in ((5,), (2, 3), (2, 1, 3), (1, 2, 3, 2)):
                for keep in (0, 1):
                    x = s.positive(*shape) if positive else s.normal(*shape)
                    if opset < 18:
                        yield Case(
                            f"y = {kind}<axes = [-1], keepdims = {keep}>(x)", {"x": x}, {}, opset
                        )
                    else:
                        text = f"y = {kind}<keepdims = {keep}>(x, a)"
                        yield Case(text, {"x": x}, {"a": ints(-1)}, opset)
            yield Case(f"y = {kind}(x)", {"x": s.positive(2, 3)}, {}, opset)
            if edges:
                x = s.edges(3, 7)
                yield Case(f"y = {kind}(x)", {"x": x}, {}, opset, True)


for _kind, _positive, _edges in (
    ("ReduceL1", False, True),
    ("ReduceL2", False, True),
    ("ReduceSumSquare", False, True),
    ("ReduceLogSum", True, False),
    ("ReduceLogSumExp", False, False),
    ("ReduceMean", False, True),
):
    _reductions(_kind, _positive, _edges)


def _softmaxes(kind: str) -> None:
    @case(f"{kind}-last-axis", dtypes=EXACT)
    def make(s: Source) -> Iterator[Case]:
        for shape in ((2, 3), (2, 1, 3), (1, 2, 3, 2), (2, 0, 3)):
            for x, edge in s.both(*shape):
                yield Case(f"y = {kind}<axis = 0>(x)", {"x": x}, {}, 20, edge)
            yield Case(f"y = {kind}<axis = -2>(x)", {"x": s.normal(*shape)}, {}, 20)


_softmaxes("Softmax")
_softmaxes("LogSoftmax")


@case("Split-slices", dtypes=_NUMBERS, exact=True)
def _split(s: Source) -> Iterator[Case]:
    for x, edge in _draw(s, 2, 5):
        yield Case("y0, y1 = Split<axis = 1>(x, n)", {"x": x}, {"n": ints(2, 3)}, 20, edge)
        yield Case("y0, y1 = Split<axis = -1, num_outputs = 2>(x)", {"x": x}, {}, 20, edge)
        yield Case("y0, y1 = Split<axis = 0>(x)", {"x": x}, {}, 13, edge)


@case("one-dimension", dtypes=("float32",))
def _one_dimension(s: Source) -> Iterator[Case]:
    for flags in ("", "<pads = [1, 2], strides = [2]>", "<dilations = [2]>", "<group = 3>"):
        inside = 1 if "group" in flags else 3
        known = {"w": s.normal(6, inside, 3), "b": s.normal(6)}
        yield Case(f"y = Conv{flags}(x, w, b)", {"x": s.normal(2, 3, 9)}, known, 20)
        yield Case(f"y = Conv{flags}(x, w)", {"x": s.normal(2, 3, 9)}, {"w": known["w"]}, 20)
    for kind in ("MaxPool", "AveragePool"):
        for flags in ("", ", pads = [1, 1]", ", strides = [2]"):
            text = f"y = {kind}<kernel_shape = [3]{flags}>(x)"
            yield Case(text, {"x": s.normal(2, 3, 9)}, {}, 20)


@case("ConstantOfShape-expand", dtypes=("float32",), exact=True)
def _constant_of_shape(s: Source) -> Iterator[Case]:
    for shape in (ints(2, 3), ints(0, 4), ints(5)):
        yield Case("y = ConstantOfShape<value = int64[1] {7}>(x)", {"x": shape}, {}, 20)
        yield Case("y = ConstantOfShape(x)", {"x": shape}, {}, 20)


@case("Tile-concat", dtypes=_NUMBERS, exact=True)
def _tile(s: Source) -> Iterator[Case]:
    for repeats in (ints(2, 1), ints(1, 3), ints(3, 2)):
        for x, edge in _draw(s, 2, 3):
            yield Case("y = Tile(x, r)", {"x": x}, {"r": repeats}, 20, edge)


@case("OneHot-compare", dtypes=("int64", "int32", "float32"), exact=True)
def _one_hot(s: Source) -> Iterator[Case]:
    known: dict[str, Array] = {
        "d": np.asarray(4, np.int64),
        "v": np.asarray([0.25, 3.0], np.float32),
    }
    for axis in (-1, 0, 1):
        for shape in ((3,), (2, 3), (0,)):
            x = s.random.integers(-4, 6, shape).astype(s.dtype)
            yield Case(f"y = OneHot<axis = {axis}>(x, d, v)", {"x": x}, known, 20)


@case("Trilu-mask", dtypes=("float32", "float64", "int64"), exact=True)
def _trilu(s: Source) -> Iterator[Case]:
    for upper in (0, 1):
        for shift in (-1, 0, 2):
            for x, edge in _draw(s, 2, 3, 4):
                known = {"k": np.asarray(shift, np.int64)}
                yield Case(f"y = Trilu<upper = {upper}>(x, k)", {"x": x}, known, 20, edge)


@case("Mod-remainder", dtypes=_WHOLE, exact=True)
def _mod(s: Source) -> Iterator[Case]:
    for flag in ("", "<fmod = 1>"):
        low = 0 if s.dtype == "uint8" else -9
        x = s.random.integers(low, 10, (4, 6)).astype(s.dtype)
        z = s.random.integers(1, 5, (4, 6)).astype(s.dtype)
        if s.dtype != "uint8":
            z[::2] *= -1
        yield Case(f"y = Mod{flag}(x, z)", {"x": x, "z": z}, {}, 20)


def _arguments(kind: str) -> None:
    @case(f"{kind}-reversed", dtypes=("float32", "int32"), exact=True)
    def make(s: Source) -> Iterator[Case]:
        for axis in (0, 1, -1):
            for keep in (0, 1):
                x = s.random.integers(0, 3, (3, 4)).astype(s.dtype)  # many equals
                flags = f"axis = {axis}, keepdims = {keep}, select_last_index = 1"
                yield Case(f"y = {kind}<{flags}>(x)", {"x": x}, {}, 20)
        yield Case(
            f"y = {kind}<select_last_index = 1, keepdims = 0>(x)",
            {"x": np.asarray([1, 2, 2, 1], s.dtype)},
        )


_arguments("ArgMax")
_arguments("ArgMin")


@case("Hardmax-one-hot", dtypes=EXACT, exact=True)
def _hardmax(s: Source) -> Iterator[Case]:
    for axis in (0, 1, -1):
        x = s.random.integers(0, 3, (3, 4)).astype(s.dtype)
        yield Case(f"y = Hardmax<axis = {axis}>(x)", {"x": x}, {}, 20)


@case("Einsum-contract", dtypes=EXACT)
def _einsum(s: Source) -> Iterator[Case]:
    pairs = (
        ("ij,jk->ik", (2, 3), (3, 4)),
        ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
        ("bhid,bhjd->bhij", (1, 2, 3, 4), (1, 2, 5, 4)),
        ("i,j->ij", (3,), (4,)),
        ("i,i->", (3,), (3,)),
        ("bij,bkj->kbi", (2, 3, 4), (2, 5, 4)),
    )
    for equation, left, right in pairs:
        feeds = {"x": s.normal(*left), "z": s.normal(*right)}
        yield Case(f'y = Einsum<equation = "{equation}">(x, z)', feeds, {}, 20)
    for equation in ("ij->ji", "ij->i", "ij->"):
        yield Case(f'y = Einsum<equation = "{equation}">(x)', {"x": s.normal(2, 3)}, {}, 20)


@case("DequantizeLinear-scaled", dtypes=("int8", "uint8"), exact=True)
def _dequantize(s: Source) -> Iterator[Case]:
    x = s.random.integers(0, 120, (3, 4)).astype(s.dtype)
    scale = s.random.uniform(0.01, 0.1, 4).astype(np.float32)
    zero = s.random.integers(0, 20, 4).astype(s.dtype)
    yield Case("y = DequantizeLinear(x, s, z)", {"x": x}, {"s": scale[0], "z": zero[0]}, 20)
    yield Case("y = DequantizeLinear(x, s)", {"x": x}, {"s": scale[1]}, 20)
    yield Case("y = DequantizeLinear<axis = 1>(x, s, z)", {"x": x}, {"s": scale, "z": zero}, 20)


@case("QuantizeLinear-rounded", dtypes=("int8", "uint8"), exact=True)
def _quantize(s: Source) -> Iterator[Case]:
    x = (s.random.standard_normal((3, 4)) * 9).astype(np.float32)
    x[0, 0], x[0, 1], x[0, 2] = math.inf, -math.inf, 0.5
    scale = np.asarray([0.5, 0.25, 0.125, 1.0], np.float32)
    zero = s.random.integers(0, 20, 4).astype(s.dtype)
    yield Case("y = QuantizeLinear(x, s, z)", {"x": x}, {"s": scale[0], "z": zero[0]}, 20, True)
    yield Case("y = QuantizeLinear<axis = 1>(x, s, z)", {"x": x}, {"s": scale, "z": zero}, 20, True)


@case("QLinearMatMul-between-floats", dtypes=("uint8", "int8"), exact=True)
def _qlinear_matmul(s: Source) -> Iterator[Case]:
    for left, right in (((2, 4), (4, 3)), ((2, 2, 4), (2, 4, 3))):
        a, b = (s.random.integers(0, 100, shape).astype(s.dtype) for shape in (left, right))
        scales = dict(
            zip(("p", "q", "r"), np.asarray([0.0123, 0.0217, 0.37], np.float32), strict=True)
        )
        zeros = {k: np.asarray(v, s.dtype) for k, v in (("i", 3), ("j", 7), ("k", 5))}
        text = "y = QLinearMatMul(x, p, i, z, q, j, r, k)"
        yield Case(text, {"x": a, "z": b}, {**scales, **zeros}, 20)


@case("QLinearConv-between-floats", dtypes=("uint8",), exact=True)
def _qlinear_conv(s: Source) -> Iterator[Case]:
    x = s.random.integers(0, 255, (1, 2, 5, 5)).astype(np.uint8)
    known = {
        "p": np.float32(0.0123),
        "q": np.float32(0.0217),
        "r": np.float32(0.37),
        "i": np.uint8(3),
        "j": np.uint8(7),
        "k": np.uint8(5),
        "w": s.random.integers(0, 255, (3, 2, 3, 3)).astype(np.uint8),
        "b": s.random.integers(-99, 99, 3).astype(np.int32),
    }
    arrays = {k: np.asarray(v) for k, v in known.items()}
    yield Case("y = QLinearConv(x, p, i, w, q, j, r, k, b)", {"x": x}, arrays, 20)


@case("MatMulInteger-int32", dtypes=("uint8",), exact=True)
def _matmul_integer(s: Source) -> Iterator[Case]:
    a, b = (s.random.integers(0, 255, shape).astype(np.uint8) for shape in ((3, 4), (4, 2)))
    zeros = {"i": np.asarray(12, np.uint8), "j": np.asarray(5, np.uint8)}
    yield Case("y = MatMulInteger(x, z, i, j)", {"x": a, "z": b}, zeros, 20)
    yield Case("y = MatMulInteger(x, z)", {"x": a, "z": b}, {}, 20)
