"""Right answers for generated cases, in float64, rounded once at the end: onnx's reference, or the
formula where the reference is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoglm.spec import Value
from autoglm.testing.formulas import FORMULAS
from autoglm.testing.generate import FLOATS, Constant, Inputs, Spec, model_of, schema_dtypes

if TYPE_CHECKING:
    import onnx


def answer(
    spec: Spec, since: int, dtype: str, inputs: Inputs, model: onnx.ModelProto
) -> tuple[Value, ...] | None:
    """The outputs in the dtypes that the model declares; None where the reference has no answer."""
    wide = _wide(spec.op, since, dtype)
    widened = [_widen(a, dtype, wide) for a in inputs]
    formula = FORMULAS.get(spec.op)
    if formula is not None:
        found: list[Any] | None = [formula(*widened, **spec.attributes)]
    else:
        question = model if wide == dtype else model_of(spec, since, widened)
        found = _evaluate(question, widened)
    if found is None:
        return None
    answers = tuple(_round(v, o) for v, o in zip(found, model.graph.output, strict=True))
    declared = zip(answers, model.graph.output, strict=True)
    # An answer of another shape than onnx infers is the reference's mistake, or the case's.
    return answers if all(_fits(a.shape, o) for a, o in declared) else None


def _fits(shape: tuple[int, ...], info: onnx.ValueInfoProto) -> bool:
    kind = info.type.tensor_type
    if not kind.HasField("shape"):
        return True
    dims = kind.shape.dim
    pairs = zip(shape, dims, strict=False)
    return len(shape) == len(dims) and all(
        d.dim_value == n for n, d in pairs if d.HasField("dim_value")
    )


def _wide(op: str, since: int, dtype: str) -> str:
    if dtype not in FLOATS:
        return dtype
    return next((d for d in ("float64", "float32") if d in schema_dtypes(op, since)), dtype)


def _widen(value: Any, dtype: str, wide: str) -> Any:
    import numpy as np

    if value is None:
        return None
    if isinstance(value, Constant) and value.fixed:
        return value
    array = value.array if isinstance(value, Constant) else value
    if str(array.dtype) == dtype:
        array = array.astype(np.dtype(wide))
    return Constant(array) if isinstance(value, Constant) else array


def _evaluate(model: onnx.ModelProto, inputs: Inputs) -> list[Any] | None:
    import numpy as np
    from onnx.reference import ReferenceEvaluator

    feeds = [a for a in inputs if a is not None and not isinstance(a, Constant)]
    names = [i.name for i in model.graph.input]
    try:
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(model).run(None, dict(zip(names, feeds, strict=True)))
    except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return None  # the reference lacks this dtype or version: no answer, no case
    return list(found)


def _round(value: Any, info: onnx.ValueInfoProto) -> Any:
    import numpy as np
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    return np.asarray(value).astype(dtype)
