"""Cases that no pack was measured with: the generator's operators with other values, sizes,
attributes and constants, drawn from a seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from autoglm.testing.cases import Case
from autoglm.testing.generate import (
    Constant,
    Inputs,
    Maker,
    Spec,
    model_of,
    schema_dtypes,
    versions,
)

_FLAGS = ("keepdims", "ceil_mode", "count_include_pad", "select_last_index", "exclusive", "reverse")
# onnx does not check that their inputs fit each other: other sizes would make invalid models.
_TIED = frozenset({"ReverseSequence", "ScatterElements", "ScatterND"})
_ATTEMPTS = 4  # the last of them keeps the sizes: some constants name them
_FACTOR, _MOST = 8, 50_000  # of a large case: its sizes, its elements
# Among so many numbers a simulator stays for minutes.
_HEAVY = frozenset({"Conv", "ConvTranspose", "LSTM", "GRU", "RNN"})


def fresh(size: int, seed: int, *, large: bool = False) -> tuple[Case, ...]:
    """`size` new cases with fixed shapes, half of them of float32.

    `large`: of thousands of numbers each, so that one case shows what some values do.
    """
    drawn = _endless(random.Random(seed), large=large)
    return tuple(case for case, _ in zip(drawn, range(size), strict=False))


def _endless(rng: random.Random, *, large: bool) -> Iterator[Case]:
    from autoglm.testing.operators import SPECS

    ops = sorted({spec.op for spec in SPECS} - (_HEAVY if large else frozenset()))
    while True:
        op = rng.choice(ops)
        spec = rng.choice([s for s in SPECS if s.op == op])
        since = rng.choice([v for v in versions(op) if v >= spec.since] or [0])
        allowed = [d for d in spec.dtypes if since and d in schema_dtypes(op, since)]
        if not allowed:
            continue
        dtype = "float32" if "float32" in allowed and rng.random() < 0.5 else rng.choice(allowed)
        tries = (_case(spec, since, dtype, rng, i, large=large) for i in range(_ATTEMPTS))
        case = next((case for case in tries if case is not None), None)
        if case is not None:
            yield case


class _Resized(Maker):
    """A maker that draws other sizes: equal ones stay equal, 0 and 1 stay."""

    def __init__(
        self, dtype: str, rng: random.Random, *, resize: bool, large: bool = False
    ) -> None:
        super().__init__(dtype, rng.randrange(2**32))
        self._random, self._resize, self._large = rng, resize, large
        self._sizes: dict[int, int] = {}

    def _of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._size(n) for n in shape)

    def _size(self, n: int) -> int:
        if n < 2 or not self._resize:
            return n
        if self._large:
            return _FACTOR * n
        if n not in self._sizes:
            taken = set(self._sizes.values())
            free = [m for m in (*range(2, 2 * n + 3), 16 * n) if m not in taken]
            self._sizes[n] = self._random.choice(free)
        return self._sizes[n]

    def n(self, *shape: int) -> Any:
        return super().n(*self._of(shape))

    def p(self, *shape: int) -> Any:
        return super().p(*self._of(shape))

    def u(self, *shape: int) -> Any:
        return super().u(*self._of(shape))

    def distinct(self, *shape: int) -> Any:
        return super().distinct(*self._of(shape))

    def b(self, *shape: int) -> Any:
        return super().b(*self._of(shape))


def _case(
    spec: Spec, since: int, dtype: str, rng: random.Random, attempt: int, *, large: bool
) -> Case | None:
    from autoglm.testing.oracle import answer

    number = rng.randrange(10**6)
    try:
        resize = attempt < _ATTEMPTS - 1 and spec.op not in _TIED
        inputs = _constants(spec.inputs(_Resized(dtype, rng, resize=resize, large=large)), rng)
        if large and sum(a.size for a in inputs if hasattr(a, "size")) > _MOST:
            return None
        varied = replace(spec, attributes=_attributes(spec, since, inputs, rng))
        model = model_of(varied, since, inputs)
        outputs = answer(varied, since, dtype, inputs, model)
    except Exception:  # a draw that means nothing: onnx's inference says so in many ways
        return None
    if outputs is None:
        return None
    feeds = tuple(a for a in inputs if a is not None and not isinstance(a, Constant))
    tag = f"_{spec.tag}" if spec.tag else ""
    name = f"fresh-{spec.op}{tag}@{since}:{dtype}#{number}"
    return Case(name, model.SerializeToString(deterministic=True), ((feeds, outputs),))


def _constants(inputs: Inputs, rng: random.Random) -> Inputs:
    """Every third time what comes after the first input is part of the model."""
    if rng.random() < 2 / 3:
        return inputs
    rest = [a if a is None or isinstance(a, Constant) else Constant(a) for a in inputs[1:]]
    return [*inputs[:1], *rest]


def _attributes(spec: Spec, since: int, inputs: Inputs, rng: random.Random) -> dict[str, Any]:
    import onnx

    known = onnx.defs.get_schema(spec.op, since, "").attributes
    first = inputs[0].array if isinstance(inputs[0], Constant) else inputs[0]
    found = {k: _other(k, v, rng) for k, v in spec.attributes.items()}
    if "axis" in known and rng.random() < 0.5 and first.ndim:
        found["axis"] = rng.randrange(-first.ndim, first.ndim)
    if "perm" in known and rng.random() < 0.8:
        found["perm"] = rng.sample(range(first.ndim), first.ndim)
    for flag in _FLAGS:
        if flag in known and rng.random() < 0.3:
            found[flag] = rng.randrange(2)
    return found


def _other(name: str, value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.4 or name in ("perm", "axis"):
        return value
    if isinstance(value, float):
        return round(value * rng.uniform(0.5, 2), 3)
    if name in ("kernel_shape", "strides", "dilations"):
        return [rng.randint(1, 3) for _ in value]
    return [rng.randint(0, 1) for _ in value] if name == "pads" else value
