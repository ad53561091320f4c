"""Seeded models on which the rules that sink a Transpose below operators with axes are proven."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autoglm.rewrite.cases import EXACT, Case, Source, case, ints

_TO_LAST = "t = Transpose<perm = [0,2,3,1]>(x)"
_TURN = "t = Transpose<perm = [1,2,0]>(x)"
_SIZES = ((2, 3, 4, 5), (1, 3, 1, 2), (2, 0, 4, 5))


@case("transpose-constant", exact=True)
def _constant(s: Source) -> Iterator[Case]:
    for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu"):
        for shape in ((4,), (3, 1), (3, 4), (1, 3, 4), (5, 1, 1)):
            for sides in ("t, c", "c, t"):
                if kind == "PRelu" and sides == "c, t":
                    continue  # its slope must fit into the other one
                known = {"c": s.positive(*shape)}
                x = {"x": s.edges(4, 5, 3)}
                yield Case(f"{_TURN} y = {kind}({sides})", x, known, 20, True)
    for shape in ((3, 4), (2, 3, 4)):  # the constant is the larger one
        known = {"c": s.normal(*shape)}
        yield Case(f"{_TURN} y = Add(t, c)", {"x": s.normal(1, 1, 1)}, known)


@case("transpose-scaled", exact=True, dtypes=("float32",))
def _scaled(s: Source) -> Iterator[Case]:
    bounds = {"low": s.number(-0.5), "high": s.number(0.7)}
    for shape in _SIZES:
        for x, edge in s.both(*shape):
            for inputs in ("t, low, high", 't, "", high', "t"):
                yield Case(f"{_TO_LAST} y = Clip({inputs})", {"x": x}, bounds, 20, edge)
    for axis in (0, 1, 3, -1):
        size = (2, 4, 5, 3)[axis]
        known = {"s": s.positive(size), "z": np.arange(size, dtype=np.uint8)}
        body = f"y = QuantizeLinear<axis = {axis}>(t, s, z)"
        yield Case(f"{_TO_LAST} {body}", {"x": s.normal(2, 3, 4, 5)}, known)
        whole = s.random.integers(0, 200, (2, 3, 4, 5)).astype(np.uint8)
        body = f"y = DequantizeLinear<axis = {axis}>(t, s, z)"
        yield Case(f"{_TO_LAST} {body}", {"x": whole}, known)
    one = {"s": s.number(0.1), "z": np.asarray(3, np.int8)}
    yield Case(f"{_TO_LAST} y = QuantizeLinear(t, s, z)", {"x": s.normal(2, 3, 4, 5)}, one)


@case("transpose-softmax", dtypes=EXACT)
def _softmax(s: Source) -> Iterator[Case]:
    for kind in ("Softmax", "LogSoftmax"):
        for axis in (0, 1, 2, 3, -1):
            for x, edge in s.both(2, 3, 4, 5):
                yield Case(f"{_TO_LAST} y = {kind}<axis = {axis}>(t)", {"x": x}, {}, 20, edge)


@case("transpose-concat", exact=True)
def _concat(s: Source) -> Iterator[Case]:
    second = "u = Transpose<perm = [0,2,3,1]>(z)"
    for axis in (0, 1, 2, 3, -1):
        shape = [2, 3, 4, 5]
        shape[(0, 2, 3, 1)[axis]] = 2
        feeds = {"x": s.edges(2, 3, 4, 5), "z": s.edges(*shape)}
        yield Case(f"{_TO_LAST} {second} y = Concat<axis = {axis}>(t, u)", feeds, {}, 20, True)
        yield Case(f"{_TO_LAST} {second} y = Concat<axis = {axis}>(t, u, t)", feeds, {}, 20, True)
    feeds = {"x": s.normal(2, 3, 4, 5), "z": s.normal(2, 1, 4, 5)}
    yield Case(f"{_TO_LAST} {second} y = Sum(t, u)", feeds)


@case("transpose-pad", exact=True)
def _pad(s: Source) -> Iterator[Case]:
    known = {"p": ints(0, 1, 2, 0, 1, 0, 1, 0), "v": s.number(0.5)}
    for x, edge in (*s.both(2, 3, 4, 5), *s.both(0, 3, 4, 5)):
        yield Case(f"{_TO_LAST} y = Pad(t, p, v)", {"x": x}, known, 20, edge)
        yield Case(f"{_TO_LAST} y = Pad(t, p)", {"x": x}, known, 13, edge)
    for mode in ("reflect", "edge"):
        yield Case(f'{_TO_LAST} y = Pad<mode = "{mode}">(t, p)', {"x": s.normal(2, 3, 4, 5)}, known)
    inward = {"p": ints(0, -1, 0, -1, 0, 0, -2, 0)}
    yield Case(f"{_TO_LAST} y = Pad(t, p)", {"x": s.normal(2, 3, 4, 5)}, inward)


@case("transpose-slice", exact=True)
def _slice(s: Source) -> Iterator[Case]:
    known = {"b": ints(1, 0), "e": ints(9, -1), "a": ints(1, -1), "n": ints(1, 2)}
    back = {"b": ints(-1), "e": ints(-9), "a": ints(2), "n": ints(-1)}
    for x, edge in (*s.both(2, 3, 4, 5), *s.both(0, 3, 4, 5)):
        yield Case(f"{_TO_LAST} y = Slice(t, b, e, a, n)", {"x": x}, known, 20, edge)
        yield Case(f"{_TO_LAST} y = Slice(t, b, e, a)", {"x": x}, known, 13, edge)
        yield Case(f"{_TO_LAST} y = Slice(t, b, e)", {"x": x}, known, 11, edge)
        yield Case(f"{_TO_LAST} y = Slice(t, b, e, a, n)", {"x": x}, back, 20, edge)


@case(
    "transpose-reduce",
    dtypes=EXACT,
    note="Without NaN: whether ONNX Runtime's ReduceMax keeps one depends on the order.",
)
def _reduce(s: Source) -> Iterator[Case]:
    for kind in ("ReduceMean", "ReduceSum", "ReduceL2", "ReduceMax", "ReduceMin"):
        for axes in ((1, 2), (-1,), (0, 3), (3, 1)):
            for keep in (0, 1):
                body = f"{_TO_LAST} y = {kind}<keepdims = {keep}>(t, a)"
                known = {"a": ints(*axes)}
                yield Case(body, {"x": s.normal(2, 3, 4, 5)}, known)
                if kind in ("ReduceMax", "ReduceMin"):  # sums of such numbers depend on the order
                    x = s.edges(2, 3, 4, 5)
                    x[np.isnan(x)] = 1.0
                    yield Case(body, {"x": x}, known, 20, True)
    older = f"{_TO_LAST} y = ReduceMean<axes = [1, 2], keepdims = 0>(t)"
    yield Case(older, {"x": s.normal(2, 3, 4, 5)}, {}, 13)
    both = f"{_TO_LAST} y0 = ReduceMean(t, a) y1 = Neg(t)"
    yield Case(both, {"x": s.normal(2, 3, 4, 5)}, {"a": ints(1, 2)})
    squeezed = f"{_TO_LAST} y = Squeeze(t, a)"
    yield Case(squeezed, {"x": s.edges(2, 3, 1, 1)}, {"a": ints(1, -2)}, 20, True)
    yield Case(squeezed, {"x": s.edges(1, 3, 1, 4)}, {"a": ints(1)}, 20, True)


@case("transpose-reshape", exact=True)
def _reshape(s: Source) -> Iterator[Case]:
    for shape in ((2, 3, 1, 1), (1, 1, 4, 5), (0, 1, 1, 1)):
        for x, edge in s.both(*shape):
            for wanted in ((-1,), (x.size, 1)):
                if -1 in wanted or x.size:
                    known = {"s": ints(*wanted)}
                    yield Case(f"{_TO_LAST} y = Reshape(t, s)", {"x": x}, known, 20, edge)


@case("transpose-gate", dtypes=EXACT, exact=True)
def _gate(s: Source) -> Iterator[Case]:
    known = {
        "three": s.number(3.0),
        "sixth": s.number(1 / 6),
        "low": s.number(0.0),
        "high": s.number(6.0),
        "c": s.positive(4, 1),
    }
    chains = (
        "g = Sigmoid(t) y = Mul(t, g)",
        "g = Sigmoid(t) y = Div(g, t)",
        "a = Add(t, three) r = Clip(a, low, high) g = Mul(r, sixth) y = Mul(t, g)",
        "a = Sub(c, t) g = LeakyRelu<alpha = 0.3>(a) y = Sub(g, t)",
        "a = Mul(c, t) y = Max(a, t)",
    )
    for chain in chains:
        for x, edge in s.both(3, 2, 4):
            yield Case(f"{_TURN} {chain}", {"x": x}, known, 20, edge)


@case("reshape-transpose", exact=True)
def _ones(s: Source) -> Iterator[Case]:
    turn = "Transpose<perm = [0,3,1,2]>(r)"
    for shape, wanted in (((2, 6), (2, 1, 1, 6)), ((2, 6), (-1, 1, 1, 6)), ((6, 1), (1, 2, 3, 1))):
        for x, edge in s.both(*shape):
            body = f"r = Reshape(x, s) y = {turn}"
            yield Case(body, {"x": x}, {"s": ints(*wanted)}, 20, edge)
