"""Seeded models on which each rewrite rule is proven: every rank, empty ones, edge values.

A case is the body of an ONNX graph as text, and its arrays. `CASES` maps a rule's name to the
function that makes its cases; `x` is fed, everything in `constants` is an initializer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
Shape: TypeAlias = tuple[int, ...]

SHAPES: tuple[Shape, ...] = ((5,), (2, 3), (0, 4), (2, 1, 3), (1, 2, 3, 2), (2, 1, 2, 1, 3))
FLOATS = ("float32", "float16", "float64")
EXACT = ("float32", "float64")
HALVES = ("float32", "float16")


@dataclass(frozen=True, slots=True)
class Case:
    """One model in which the rule applies, and what to feed it."""

    body: str
    feeds: dict[str, Array]
    constants: dict[str, Array] = field(default_factory=dict)
    opset: int = 20
    edges: bool = False  # whether the feeds hold NaN, infinities, -0.0, denormal and huge numbers


@dataclass(frozen=True, slots=True)
class Source:
    """Where cases come from: seeded random numbers of one dtype."""

    random: np.random.Generator
    dtype: str

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        """Ordinary numbers."""
        return np.asarray(self.random.standard_normal(shape) * scale).astype(self.dtype)

    def positive(self, *shape: int) -> Array:
        """Numbers between 0.5 and 2."""
        return np.asarray(self.random.uniform(0.5, 2.0, shape)).astype(self.dtype)

    def edges(self, *shape: int) -> Array:
        """Ordinary numbers with each special one sprinkled in."""
        info = np.finfo(self.dtype)
        special = [
            math.nan,
            math.inf,
            -math.inf,
            -0.0,
            0.0,
            info.tiny / 4,
            info.max,
            -info.max,
            20.0,
        ]
        array = self.normal(*shape).reshape(-1)
        for place in self.random.permutation(array.size)[: len(special)]:
            array[place] = special[int(place) % len(special)]
        return array.reshape(shape)

    def number(self, value: float, *shape: int) -> Array:
        """A constant of this dtype."""
        return np.full(shape, value).astype(self.dtype)

    def both(self, *shape: int) -> Iterator[tuple[Array, bool]]:
        """The shape once with ordinary and once with special numbers."""
        yield self.normal(*shape), False
        yield self.edges(*shape), True


Make: TypeAlias = Callable[[Source], Iterator[Case]]


@dataclass(frozen=True, slots=True)
class Cases:
    """How a rule is proven."""

    make: Make
    dtypes: tuple[str, ...] = FLOATS
    exact: bool = False  # the answer may not differ in a single bit (except which NaN it is)
    finite: bool = False  # proven on finite numbers only; what it does with others is in `note`
    note: str = ""


CASES: dict[str, Cases] = {}


def case(*rules: str, **options: Any) -> Callable[[Make], Make]:
    """Register the cases of these rules."""

    def register(make: Make) -> Make:
        for rule in rules:
            CASES[rule] = Cases(make, **options)
        return make

    return register


def ints(*numbers: int) -> Array:
    """A vector of int64."""
    return np.asarray(numbers, np.int64)


def _pointwise(
    s: Source, bodies: list[str], constants: dict[str, float], opset: int
) -> Iterator[Case]:
    for number, body in enumerate(bodies):
        for shape in SHAPES:
            for x, edge in s.both(*shape):
                rank = number % 2  # constants of no dimension, and of one
                known = {k: s.number(v, *[1] * rank) for k, v in constants.items()}
                yield Case(body, {"x": x}, known, opset, edge)


def _halves(total: str) -> list[str]:
    ends = (
        "p = Mul(x, t) y = Mul(p, half)",
        "p = Mul(half, t) y = Mul(p, x)",
        "p = Mul(x, half) y = Mul(t, p)",
    )
    return [f"{total} {end}" for end in ends]


@case(
    "gelu-erf",
    dtypes=HALVES,
    finite=True,
    note="for |x| above half the dtype's maximum the spelled-out form may overflow; Gelu does not",
)
def _gelu_erf(s: Source) -> Iterator[Case]:
    for inner, root in (("Div(x, root)", math.sqrt(2)), ("Mul(root, x)", math.sqrt(0.5))):
        bodies = _halves(f"i = {inner} e = Erf(i) t = Add(one, e)")
        yield from _pointwise(s, bodies, {"root": root, "one": 1.0, "half": 0.5}, 20)


@case(
    "gelu-tanh",
    dtypes=HALVES,
    finite=True,
    note="for |x| above half the dtype's maximum the spelled-out form may overflow; Gelu does not",
)
def _gelu_tanh(s: Source) -> Iterator[Case]:
    for cube in ("k = Pow(x, three)", "q = Mul(x, x) k = Mul(x, q)"):
        text = (
            f"{cube} m = Mul(k, cubic) a = Add(x, m) i = Mul(a, slope) h = Tanh(i) t = Add(h, one)"
        )
        known = {"cubic": 0.044715, "slope": math.sqrt(2 / math.pi), "one": 1.0, "half": 0.5}
        if "three" in cube:
            known["three"] = 3.0
        yield from _pointwise(s, _halves(text), known, 20)


@case("swish", dtypes=("float32", "float64"))
def _swish(s: Source) -> Iterator[Case]:
    yield from _pointwise(
        s, ["g = Sigmoid(x) y = Mul(x, g)", "g = Sigmoid(x) y = Mul(g, x)"], {}, 24
    )


@case("hardswish", dtypes=HALVES)
def _hardswish(s: Source) -> Iterator[Case]:
    known = {"three": 3.0, "low": 0.0, "high": 6.0, "six": 6.0}
    for shape in SHAPES:
        for x, edge in s.both(*shape):
            scalars = {k: s.number(v) for k, v in known.items()}
            for body in (
                "a = Add(x, three) g = Clip(a, low, high) p = Mul(x, g) y = Div(p, six)",
                "a = Add(three, x) g = Clip(a, low, high) d = Div(g, six) y = Mul(d, x)",
            ):
                if not edge or "p = Mul" not in body:
                    yield Case(body, {"x": x}, scalars, 20, edge)
            text = "g = HardSigmoid<alpha = 0.1666666716337204, beta = 0.5>(x) y = Mul(x, g)"
            yield Case(text, {"x": x}, {}, 20, edge)


@case("layer-norm", dtypes=HALVES)
def _layer_norm(s: Source) -> Iterator[Case]:
    squares = ("q = Pow(d, two)", "q = Mul(d, d)")
    for number, shape in enumerate(((3, 8), (2, 3, 8), (0, 8), (2, 1, 3, 8), (1, 2, 1, 2, 8))):
        for x, edge in s.both(*shape):
            body = (
                f"m = ReduceMean(x, axes) d = Sub(x, m) {squares[number % 2]} "
                "v = ReduceMean(q, axes) a = Add(v, eps) r = Sqrt(a) n = Div(d, r) "
                "g = Mul(n, scale) y = Add(bias, g)"
            )
            known = {"axes": ints(-1), "eps": s.number(1e-5 if s.dtype == "float32" else 1e-3)}
            known |= {"scale": s.positive(8), "bias": s.normal(8)}
            if number % 2 == 0:
                known["two"] = s.number(2.0)
            yield Case(body, {"x": x}, known, 18, edge)


@case("rms-norm", dtypes=("float32",))
def _rms_norm(s: Source) -> Iterator[Case]:
    ends = ("n = Div(x, r)", "i = Reciprocal(r) n = Mul(x, i)")
    for number, shape in enumerate(((3, 8), (2, 3, 8), (0, 8), (2, 1, 3, 8), (1, 2, 1, 2, 8))):
        square = "q = Pow(x, two)" if number % 2 else "q = Mul(x, x)"
        for end in ends:
            body = f"{square} m = ReduceMean(q, axes) a = Add(eps, m) r = Sqrt(a) {end} "
            body += "y = Mul(scale, n)"
            known = {"axes": ints(-1), "eps": s.number(1e-5), "scale": s.positive(8)}
            if number % 2:
                known["two"] = s.number(2.0)
            for x, edge in s.both(*shape):
                yield Case(body, {"x": x}, known, 23, edge)


@case(
    "softmax-guard",
    finite=True,
    note="a row that is wholly -inf, or holds NaN or +inf, gives NaN where the guard gave 0",
)
def _softmax_guard(s: Source) -> Iterator[Case]:
    for shape in ((2, 3), (0, 4), (2, 1, 3), (1, 2, 3, 2)):
        mask = np.zeros(shape[-1:]).astype(s.dtype)
        mask[0] = -math.inf
        for body in (
            "w = Softmax<axis = -1>(x) n = IsNaN(w) y = Where(n, zero, w)",
            "p = MatMul(x, k) z = Add(p, mask) w = Softmax<axis = -1>(z) n = IsNaN(w) "
            "y = Where(n, zero, w)",
        ):
            known = {"zero": s.number(0.0)}
            if "mask" in body:
                known |= {"mask": mask, "k": s.normal(shape[-1], shape[-1])}
            yield Case(body, {"x": s.normal(*shape)}, known, 20)


@case("transpose-transpose", exact=True)
def _transposes(s: Source) -> Iterator[Case]:
    for x, edge in (*s.both(2, 3, 4), *s.both(0, 3, 2)):
        for first, second in (
            ("[1,2,0]", "[2,0,1]"),
            ("[0,2,1]", "[1,0,2]"),
            ("[2,1,0]", "[2,1,0]"),
        ):
            body = f"t = Transpose<perm = {first}>(x) y = Transpose<perm = {second}>(t)"
            yield Case(body, {"x": x}, {}, 20, edge)
    yield Case("t = Transpose(x) y = Transpose(t)", {"x": s.normal(2, 3, 4, 5)})
    shared = "t = Transpose<perm = [1,2,0]>(x) y0 = Transpose<perm = [1,2,0]>(t) y1 = Neg(t)"
    yield Case(shared, {"x": s.edges(2, 3, 4)}, {}, 20, True)


@case("transpose-unary", exact=True, dtypes=EXACT)
def _transpose_unary(s: Source) -> Iterator[Case]:
    for kind in (
        "Relu",
        "Neg",
        "Abs",
        "Floor",
        "Sqrt",
        "Sigmoid",
        "Gelu",
        "LeakyRelu<alpha = 0.3>",
    ):
        for x, edge in (*s.both(2, 3, 4), *s.both(0, 3, 2)):
            yield Case(f"t = Transpose<perm = [1,2,0]>(x) y = {kind}(t)", {"x": x}, {}, 20, edge)


@case("transpose-binary", exact=True)
def _transpose_binary(s: Source) -> Iterator[Case]:
    for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
        for shape in ((2, 3, 4), (2, 1, 4), (0, 3, 4), (1, 1, 1)):
            first = (2, 3, 4) if shape[0] else shape
            feeds = {"x": s.edges(*first), "z": s.edges(*shape)}
            moved = "a = Transpose<perm = [2,0,1]>(x) b = Transpose<perm = [2,0,1]>(z)"
            body = f"{moved} y = {kind}(a, b)"
            yield Case(body, feeds, {}, 20, True)


@case("transpose-scalar", exact=True)
def _transpose_scalar(s: Source) -> Iterator[Case]:
    for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
        for sides in ("t, c", "c, t"):
            for rank in (0, 1, 3):
                body = f"t = Transpose<perm = [1,2,0]>(x) y = {kind}({sides})"
                yield Case(
                    body, {"x": s.edges(2, 3, 4)}, {"c": s.number(0.7, *[1] * rank)}, 20, True
                )


@case("cast-cast", exact=True, dtypes=("float16", "float32", "int8", "uint8", "bool"))
def _casts(s: Source) -> Iterator[Case]:
    wider = {
        "float16": (1, 11),
        "float32": (11,),
        "int8": (6, 7, 1, 11),
        "uint8": (5, 6, 1),
        "bool": (2, 6, 1),
    }
    for middle in wider[s.dtype]:
        for last in (1, 10, 11, 7, 9):
            whole = s.random.integers(0, 2 if s.dtype == "bool" else 100, (3, 4)).astype(s.dtype)
            fractional = s.dtype.startswith("float") and last in (1, 10, 11)
            x = s.edges(3, 4) if fractional else whole
            text = f"m = Cast<to = {middle}>(x) y = Cast<to = {last}>(m)"
            yield Case(text, {"x": x}, {}, 20, fractional)


@case("reshape-reshape", exact=True)
def _reshapes(s: Source) -> Iterator[Case]:
    shape = {"a": ints(6, 4), "b": ints(3, -1)}
    yield Case("r = Reshape(x, a) y = Reshape(r, b)", {"x": s.edges(2, 3, 4)}, shape, 20, True)
    yield Case(
        "r = Unsqueeze(x, a) y = Reshape(r, b)",
        {"x": s.edges(2, 6)},
        {"a": ints(1), "b": ints(4, 3)},
    )
    yield Case("r = Flatten(x) y = Unsqueeze(r, a)", {"x": s.edges(2, 3, 4)}, {"a": ints(0)})
    yield Case("r = Squeeze(x, a) y = Flatten(r)", {"x": s.edges(2, 1, 3, 4)}, {"a": ints(1)})
    yield Case(
        "r = Reshape(x, a) y = Reshape(r, b)", {"x": s.edges(2, 3)}, {"a": ints(6), "b": ints(2, 3)}
    )


@case("squeeze-unsqueeze", exact=True)
def _squeezes(s: Source) -> Iterator[Case]:
    axes = {"a": ints(0, 2), "b": ints(2, 0)}
    yield Case("r = Unsqueeze(x, a) y = Squeeze(r, b)", {"x": s.edges(2, 3)}, axes, 20, True)
    yield Case("r = Squeeze(x, a) y = Unsqueeze(r, b)", {"x": s.edges(1, 3, 1)}, axes, 20, True)
    yield Case("r = Unsqueeze(x, a) y = Squeeze(r, a)", {"x": s.normal(0, 3)}, {"a": ints(-1)})


_IMAGES: tuple[tuple[Shape, Shape], ...] = (
    ((2, 3, 9), (4, 3, 3)),
    ((1, 3, 6, 6), (4, 3, 3, 3)),
    ((2, 3, 4, 4, 4), (2, 3, 2, 2, 2)),
    ((0, 3, 6, 6), (4, 3, 3, 3)),
)


def _with_conv(
    s: Source, end: str, extra: Callable[[int, int], dict[str, Array]]
) -> Iterator[Case]:
    for number, (image, kernel) in enumerate(_IMAGES):
        given = "x, w, b" if number % 2 else "x, w"
        known = {"w": s.normal(*kernel, scale=0.3), **extra(kernel[0], len(image))}
        if number % 2:
            known["b"] = s.normal(kernel[0])
        yield Case(f"v = Conv({given}) {end}", {"x": s.normal(*image)}, known, 20)


def _channels(s: Source, count: int, size: int) -> Array:
    return s.normal(count, *[1] * (size - 2))


@case(
    "conv-batchnorm", dtypes=EXACT, finite=True, note="overflow moves with the scale of the weights"
)
def _conv_batchnorm(s: Source) -> Iterator[Case]:
    def parameters(count: int, _: int) -> dict[str, Array]:
        named = {k: s.normal(count) for k in ("s", "o", "m")}
        return {**named, "k": s.positive(count)}

    for epsilon in (1e-5, 0.25):
        yield from _with_conv(
            s, f"y = BatchNormalization<epsilon = {epsilon}>(v, s, o, m, k)", parameters
        )


@case("conv-bias", dtypes=EXACT, finite=True, note="overflow may move by one rounding")
def _conv_bias(s: Source) -> Iterator[Case]:
    yield from _with_conv(s, "y = Add(v, c)", lambda n, r: {"c": _channels(s, n, r)})
    yield from _with_conv(s, "y = Add(c, v)", lambda n, r: {"c": s.number(0.3)})


@case("conv-scale", dtypes=EXACT, finite=True, note="overflow moves with the scale of the weights")
def _conv_scale(s: Source) -> Iterator[Case]:
    yield from _with_conv(s, "y = Mul(v, c)", lambda n, r: {"c": _channels(s, n, r)})
    yield from _with_conv(s, "y = Mul(c, v)", lambda n, r: {"c": s.number(0.3, 1)})


_MATRICES: tuple[tuple[Shape, Shape], ...] = (
    ((3, 4), (4, 5)),
    ((0, 4), (4, 5)),
    ((2, 3, 4), (4, 5)),
    ((2, 1, 3, 4), (2, 4, 5)),
)


@case("matmul-scale", dtypes=EXACT, finite=True, note="overflow moves with the scale of the weight")
def _matmul_scale(s: Source) -> Iterator[Case]:
    for left, right in _MATRICES:
        for rank in (0, 1):
            known = {"w": s.normal(*right), "c": s.number(0.37, *[1] * rank)}
            yield Case("p = MatMul(x, w) y = Mul(c, p)", {"x": s.normal(*left)}, known, 20)


@case("matmul-add-gemm", dtypes=EXACT)
def _gemm(s: Source) -> Iterator[Case]:
    for rows in (3, 0, 1):
        for bias in ((5,), (1, 5), (rows, 5), (rows, 1), (1,), ()):
            known = {"w": s.normal(4, 5), "c": s.normal(*bias)}
            for x, edge in s.both(rows, 4):
                yield Case("p = MatMul(x, w) y = Add(c, p)", {"x": x}, known, 20, edge)


@case("attention-scale", dtypes=EXACT, finite=True, note="overflow moves with the merged scale")
def _attention_scale(s: Source) -> Iterator[Case]:
    for left, right in (((2, 3, 4), (2, 4, 5)), ((1, 2, 3, 4), (1, 2, 4, 3)), ((0, 4), (4, 5))):
        known = {"a": s.number(0.6), "b": s.number(0.7, 1)}
        body = "q = Mul(x, a) k = Mul(b, z) y = MatMul(q, k)"
        yield Case(body, {"x": s.normal(*left), "z": s.normal(*right)}, known, 20)
