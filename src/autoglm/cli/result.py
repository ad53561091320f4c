"""What `compile` and `run` print as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoglm.api import CompileResult
    from autoglm.spec import Value

_SHOWN = 16


def result_dict(result: CompileResult) -> dict[str, Any]:
    """A compile result as JSON."""
    return {
        "folder": str(result.folder),
        "cache_hits": result.cache_hits,
        "notes": list(result.notes),
        "measurements": list(result.measurements),
        "certificates": list(result.certificates),
        "report": result.report.to_dict(),
    }


def summary(value: Value) -> dict[str, Any]:
    """One output in short: dtype, shape, range, and the values where they are few."""
    import numpy as np

    if value is None:
        return {"kind": "none"}
    if isinstance(value, list):
        return {"kind": "sequence", "length": len(value), "items": [summary(v) for v in value[:8]]}
    array = np.asarray(value)
    facts: dict[str, Any] = {
        "kind": "tensor",
        "dtype": "string" if array.dtype.kind in "OUS" else str(array.dtype),
        "shape": list(array.shape),
    }
    if array.dtype.kind in "OUS":
        return {**facts, "values": [str(v) for v in array.ravel()[:_SHOWN]]}
    return {**facts, **_range(array)}


def _range(array: Any) -> dict[str, Any]:
    import numpy as np

    if array.dtype.kind == "c":
        array = np.abs(array)
    wide = array.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    facts: dict[str, Any] = {}
    if finite.size:
        facts = {"min": finite.min(), "max": finite.max(), "mean": finite.mean()}
    facts = {name: float(number) for name, number in facts.items()}
    if finite.size != wide.size:
        facts["not_finite"] = int(wide.size - finite.size)
    if array.size <= _SHOWN:
        facts["values"] = wide.ravel().tolist()
    return facts
