"""Whether an answer is right, and by how much it is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoglm.spec import Value
from autoglm.testing.cases import Case

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

# Largest difference, relative to the largest value of the answer. Integers, booleans and strings:
# exact.
TOLERANCE = {
    "float64": 1e-6,
    "float32": 1e-4,
    "complex64": 1e-4,
    "complex128": 1e-6,
    "float16": 5e-3,
    "bfloat16": 2e-2,
    "float8_e5m2": 0.25,
    "float8_e5m2fnuz": 0.25,
    "float8_e4m3fn": 0.125,
    "float8_e4m3fnuz": 0.125,
    "float8_e8m0fnu": 0.5,
    "float4_e2m1fn": 0.5,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """`yes`, `imprecise` (right for the dtype, but not to the case's own tolerance) or `wrong`."""

    outcome: str = "yes"
    reason: str = ""
    runs_on: str = (
        ""  # where the artifact says that it ran: "device", "simulator"; "" = it does not
    )


RIGHT = Answer()


def judge(case: Case, wanted: tuple[Value, ...], got: tuple[Value, ...]) -> Answer:
    """The worst of the outputs."""
    if len(wanted) != len(got):
        return Answer("wrong", f"{len(got)} outputs for {len(wanted)}")
    found = [_value(case, want, have) for want, have in zip(wanted, got, strict=True)]
    worst = _worst(found)
    if worst.outcome == "yes" or len(found) == 1:
        return worst
    return Answer(worst.outcome, f"output {found.index(worst)}: {worst.reason}")


def _worst(found: list[Answer]) -> Answer:
    order = ("wrong", "imprecise")
    return next((a for outcome in order for a in found if a.outcome == outcome), RIGHT)


def _value(case: Case, want: Value, have: Value) -> Answer:
    import numpy as np

    if want is None or have is None:
        same = want is have
        return RIGHT if same else Answer("wrong", "an absent optional and a value differ")
    if isinstance(want, list):
        if not isinstance(have, list) or len(want) != len(have):
            return Answer("wrong", "the sequence has another length")
        return _worst([_value(case, w, h) for w, h in zip(want, have, strict=True)])
    return _array(case, np.asarray(want), np.asarray(have))


def _array(case: Case, want: Any, have: Any) -> Answer:
    if want.dtype != have.dtype and not (want.dtype.kind in "OU" and have.dtype.kind in "OU"):
        return Answer("wrong", f"dtype {have.dtype} for {want.dtype}")
    if want.shape != have.shape:
        return Answer("wrong", f"shape {_shape(have)} for {_shape(want)}")
    if case.judge == "shapes":
        return RIGHT
    if want.dtype.kind in "OUSb":
        different = int((want != have).sum())
        reason = f"{different} of {want.size} elements differ"
        return Answer("wrong", reason) if different else RIGHT
    return _numbers(case, want, have)


def _shape(array: Any) -> str:
    return "x".join(map(str, array.shape)) or "scalar"


def _numbers(case: Case, want: Any, have: Any) -> Answer:
    import numpy as np

    name = str(want.dtype)
    wide = np.complex128 if want.dtype.kind == "c" else np.float64
    a, b = want.astype(wide), have.astype(wide)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not _same_specials(a[~finite], b[~finite]):
        return Answer("wrong", "NaN or inf in other places")
    if not finite.any():
        return RIGHT
    error, size = np.abs(a[finite] - b[finite]), np.abs(a[finite])
    loose = TOLERANCE.get(name, 0.0) * max(float(size.max()), 1e-12)
    asked = loose if case.rtol is None or case.atol is None else case.atol + case.rtol * size
    if (error <= asked).all():
        return RIGHT
    kind = "imprecise" if (error <= loose).all() else "wrong"
    return Answer(kind, f"max error {error.max():.2g} of {size.max():.2g}")


def _same_specials(a: Array, b: Array) -> bool:
    import numpy as np

    return bool(
        np.array_equal(np.isnan(a), np.isnan(b))
        and np.array_equal(a[~np.isnan(a)], b[~np.isnan(b)])
    )
