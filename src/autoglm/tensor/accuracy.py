"""How far an answer is from the golden one, and whether the precision's tolerance allows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoglm.errors import InputError
from autoglm.spec import Value


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a precision must reach; all three count: cosine alone passes plainly wrong answers."""

    cosine: float
    max_relative: float
    sqnr_db: float


# The project's starting table for accuracy gates: proposed from experience, not derived from data.
# Measured: two real engine faults (an LSTM that ignores sequence lengths, BatchNormalization
# in training mode) score cosine 0.998 and 0.996: the fp32 row catches both; sound results lie
# well inside: fp16 8e-4, bf16 6.3e-3 to 1.3e-2, int8 1.1e-2 relative maximum on small nets.
TOLERANCE: dict[str, Tolerance] = {
    "fp32": Tolerance(0.999999, 1e-4, 80),
    "fp16": Tolerance(0.9999, 5e-3, 50),
    "bf16": Tolerance(0.999, 2e-2, 35),
    "int8": Tolerance(0.99, 1e-1, 20),
    "int8-dynamic": Tolerance(0.99, 1e-1, 20),
    "int4": Tolerance(0.98, 2e-1, 15),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """How far apart two answers are: each figure is the worst of all outputs, named in `detail`."""

    max_abs: float = 0.0
    max_relative: float = (
        0.0  # max |d| / max |golden|; of integers, text: >= the share that differs
    )
    sqnr_db: float = math.inf
    cosine: float = 1.0
    mismatches: int = 0  # integer, bool and string elements that differ
    detail: str = ""


SAME = Difference()


def compare(golden: Value | Mapping[str, Value], got: Value | Mapping[str, Value]) -> Difference:
    """Compare tensors, sequences, absent optionals, or mappings of them; what differs never raises.

    NaN and infinities must stand in the same places. Where golden is all zero, the relative error
    is the absolute one.
    """
    if isinstance(golden, Mapping):
        if not isinstance(got, Mapping):
            return _apart(f"expected outputs by name, found {type(got).__name__}")
        return _worst([(name, _entry(golden[name], name, got)) for name in golden])
    if isinstance(golden, list | tuple):
        return _sequences(golden, got)
    if golden is None or got is None:
        return SAME if golden is got else _apart("one is an absent optional, the other is not")
    if isinstance(got, list | tuple | Mapping):
        return _apart(f"expected a tensor, found a {type(got).__name__}")
    return _tensors(np.asarray(golden), np.asarray(got))


def passes(difference: Difference, precision: str, max_error: float | None = None) -> bool:
    """Whether it is within the precision's tolerance, or `max_error` (relative) where given."""
    if max_error is not None:
        return difference.max_relative <= max_error
    limit = tolerance(precision)
    return (
        difference.max_relative <= limit.max_relative
        and difference.cosine >= limit.cosine
        and difference.sqnr_db >= limit.sqnr_db
    )


def tolerance(precision: str) -> Tolerance:
    """The row of that precision; InputError lists the known ones."""
    if precision not in TOLERANCE:
        raise InputError(
            "Unknown precision {name!r}; known: {known}.",
            name=precision,
            known=", ".join(TOLERANCE),
        )
    return TOLERANCE[precision]


def _apart(detail: str) -> Difference:
    return Difference(math.inf, math.inf, -math.inf, 0.0, detail=detail)


def _entry(golden: Value, name: str, got: Mapping[str, Value]) -> Difference:
    return compare(golden, got[name]) if name in got else _apart("is missing")


def _sequences(golden: list[Value] | tuple[Value, ...], got: Value) -> Difference:
    if not isinstance(got, list | tuple):
        return _apart(f"expected a sequence of {len(golden)}, found a {type(got).__name__}")
    if len(golden) != len(got):
        return _apart(f"expected a sequence of {len(golden)}, found one of {len(got)}")
    return _worst(
        [(f"[{i}]", compare(a, b)) for i, (a, b) in enumerate(zip(golden, got, strict=True))]
    )


def _worst(found: list[tuple[str, Difference]]) -> Difference:
    if not found:
        return SAME
    name, worst = max(found, key=lambda item: (item[1].max_relative, -item[1].sqnr_db))
    same = worst.max_relative == 0
    return Difference(
        max_abs=max(d.max_abs for _, d in found),
        max_relative=worst.max_relative,
        sqnr_db=min(d.sqnr_db for _, d in found),
        cosine=min(d.cosine for _, d in found),
        mismatches=sum(d.mismatches for _, d in found),
        detail="" if same else f"{name}: {worst.detail}" if worst.detail else name,
    )


def _tensors(golden: np.ndarray, got: np.ndarray) -> Difference:
    if golden.shape != got.shape:
        return _apart(f"expected shape {list(golden.shape)}, found {list(got.shape)}")
    kinds = {_kind(golden), _kind(got)}
    if len(kinds) > 1 and "text" in kinds:
        return _apart(f"expected {golden.dtype}, found {got.dtype}")
    if golden.size == 0:
        return SAME
    if kinds == {"text"}:
        wrong = int(np.count_nonzero(golden.astype(str) != got.astype(str)))
        return _exact(wrong, golden.size, float(wrong > 0), 0.0)
    if kinds == {"exact"}:
        return _integers(golden, got)
    return _floats(_wide(golden), _wide(got), _tiny(golden))


def _kind(array: np.ndarray) -> str:
    if array.dtype.kind in "OUST":
        return "text"
    if array.dtype.kind in "biu" or array.dtype.name in {"int4", "uint4", "int2", "uint2"}:
        return "exact"
    return "float"


def _integers(golden: np.ndarray, got: np.ndarray) -> Difference:
    # longdouble holds every 64-bit integer exactly on x86-64; it is used only where the two differ.
    a, b = (
        x.astype(np.int8 if x.dtype.kind == "V" else x.dtype).reshape(-1) for x in (golden, got)
    )
    where = np.nonzero(a != b)[0]
    if not where.size:
        return SAME
    apart = float(np.abs(a[where].astype(np.longdouble) - b[where].astype(np.longdouble)).max())
    scale = max(abs(int(a.max())), abs(int(a.min()))) or 1
    return _exact(where.size, a.size, apart, apart / scale)


def _exact(wrong: int, count: int, apart: float, relative: float) -> Difference:
    """Values that are right or wrong: the share that is wrong stands for the relative error."""
    if not wrong:
        return SAME
    share = wrong / count
    return Difference(
        max_abs=apart,
        max_relative=max(share, relative),
        sqnr_db=-20 * math.log10(share),
        cosine=1 - share**2 / 2,
        mismatches=wrong,
        detail=f"{wrong} of {count} elements differ",
    )


def _wide(array: np.ndarray) -> np.ndarray:
    return np.ravel(array).astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _tiny(array: np.ndarray) -> float:
    plain = array.dtype.isbuiltin == 1 and array.dtype.kind in "fc"
    return float(np.finfo(array.dtype).tiny) if plain else 0.0


def _floats(golden: np.ndarray, got: np.ndarray, tiny: float) -> Difference:
    finite = np.isfinite(golden) & np.isfinite(got)
    if not finite.all():
        strange, found = golden[~finite], got[~finite]
        agree = (strange == found) | (np.isnan(strange) & np.isnan(found))
        if not agree.all():
            return _apart(f"{int((~agree).sum())} elements differ in NaN or infinity")
        golden, got = golden[finite], got[finite]
        if not golden.size:
            return SAME
    return _finite(golden, got, tiny)


def _finite(golden: np.ndarray, got: np.ndarray, tiny: float) -> Difference:
    with np.errstate(over="ignore"):
        apart: Any = np.abs(golden - got)
    worst = int(apart.argmax())
    largest, scale = float(apart[worst]), float(np.abs(golden).max())
    if largest == 0:
        return SAME
    if not math.isfinite(largest):
        return replace(_apart("the difference overflows"), max_abs=largest)
    detail = f"element {worst}: expected {golden[worst]:.6g}, found {got[worst]:.6g}"
    if scale <= tiny:
        return Difference(largest, largest, -20 * math.log10(largest), detail=detail)
    # Scaled first, so that squares neither overflow nor vanish.
    a, b, noise = golden / scale, got / scale, apart / scale
    signal = float(np.sum(np.abs(a) ** 2))
    error = float(np.sum(noise**2))
    sqnr = 10 * math.log10(signal / error) if error else math.inf
    return Difference(largest, largest / scale, sqnr, _cosine(a, b, signal), detail=detail)


def _cosine(a: np.ndarray, b: np.ndarray, signal: float) -> float:
    size = float(np.abs(b).max())
    if size == 0:
        return 0.0
    b = b / size
    product = float(np.real(np.vdot(a, b)))
    return max(-1.0, min(1.0, product / math.sqrt(signal * float(np.sum(np.abs(b) ** 2)))))
