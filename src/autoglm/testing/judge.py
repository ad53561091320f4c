"""Whether an answer is right, and by how much it is wrong."""

from __future__ import annotations

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


def wrong(case: Case, wanted: tuple[Value, ...], got: tuple[Value, ...]) -> str:
    """What is wrong with the answer; "" when it is right."""
    if len(wanted) != len(got):
        return f"{len(got)} outputs for {len(wanted)}"
    for index, (want, have) in enumerate(zip(wanted, got, strict=True)):
        found = _value(case, want, have)
        if found:
            return found if len(wanted) == 1 else f"output {index}: {found}"
    return ""


def _value(case: Case, want: Value, have: Value) -> str:
    import numpy as np

    if want is None or have is None:
        return "" if want is have else "an absent optional and a value differ"
    if isinstance(want, list):
        if not isinstance(have, list) or len(want) != len(have):
            return "the sequence has another length"
        return next(filter(None, (_value(case, w, h) for w, h in zip(want, have, strict=True))), "")
    return _array(case, np.asarray(want), np.asarray(have))


def _array(case: Case, want: Any, have: Any) -> str:
    if want.dtype != have.dtype and not (want.dtype.kind in "OU" and have.dtype.kind in "OU"):
        return f"dtype {have.dtype} for {want.dtype}"
    if want.shape != have.shape:
        return f"shape {_shape(have)} for {_shape(want)}"
    if case.judge == "shapes":
        return ""
    if want.dtype.kind in "OUSb":
        different = int((want != have).sum())
        return f"{different} of {want.size} elements differ" if different else ""
    return _numbers(case, want, have)


def _shape(array: Any) -> str:
    return "x".join(map(str, array.shape)) or "scalar"


def _numbers(case: Case, want: Any, have: Any) -> str:
    import numpy as np

    name = str(want.dtype)
    wide = np.complex128 if want.dtype.kind == "c" else np.float64
    a, b = want.astype(wide), have.astype(wide)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not _same_specials(a[~finite], b[~finite]):
        return "NaN or inf in other places"
    if not finite.any():
        return ""
    error = np.abs(a[finite] - b[finite])
    if case.rtol is not None and case.atol is not None:
        limit = case.atol + case.rtol * np.abs(a[finite])
    else:
        limit = TOLERANCE.get(name, 0.0) * max(float(np.abs(a[finite]).max()), 1e-12)
    if (error <= limit).all():
        return ""
    return f"max error {error.max():.2g} of {np.abs(a[finite]).max():.2g}"


def _same_specials(a: Array, b: Array) -> bool:
    import numpy as np

    return bool(
        np.array_equal(np.isnan(a), np.isnan(b))
        and np.array_equal(a[~np.isnan(a)], b[~np.isnan(b)])
    )
