"""Generated operator cases: every common operator, over the dtypes and versions its schema allows.

The suite of onnx measures mostly float32; a table of what an engine takes needs the other dtypes
too. Answers
come from `oracle`, in float64 where the schema allows it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoglm.testing.cases import Case

if TYPE_CHECKING:
    import numpy as np
    import onnx

FLOATS = ("float32", "float16", "bfloat16", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = (*FLOATS, *INTEGERS, "bool")
# Models older than this are raised to it by the frontend, so no backend ever sees an older
# operator.
OLDEST = 18


@dataclass(frozen=True, slots=True)
class Constant:
    """An input that is part of the model; `fixed`: its dtype is the schema's, not the one under
    test.
    """

    array: np.ndarray[Any, Any]
    fixed: bool = False


class Maker:
    """Seeded arrays of the dtype under test, and of fixed dtypes."""

    def __init__(self, dtype: str, seed: int) -> None:
        import numpy as np

        self.dtype = dtype
        self._rng = np.random.default_rng(seed)

    def _cast(self, array: Any) -> Any:
        import ml_dtypes  # noqa: F401 - registers bfloat16 by name
        import numpy as np

        return np.asarray(array).astype(np.dtype(self.dtype))

    def n(self, *shape: int) -> Any:
        """Around zero; small whole numbers for integers."""
        if self.dtype in FLOATS:
            return self._cast(self._rng.uniform(-2, 2, shape))
        low = 0 if self.dtype.startswith(("u", "b")) else -4
        return self._cast(self._rng.integers(low, 2 if self.dtype == "bool" else 5, shape))

    def p(self, *shape: int) -> Any:
        """Positive, away from zero."""
        if self.dtype in FLOATS:
            return self._cast(self._rng.uniform(0.5, 2, shape))
        return self._cast(self._rng.integers(1, 2 if self.dtype == "bool" else 4, shape))

    def u(self, *shape: int) -> Any:
        """Inside (-1, 1), for the inverse functions."""
        return self._cast(self._rng.uniform(-0.9, 0.9, shape))

    def distinct(self, *shape: int) -> Any:
        """No two elements equal, so that order is unique."""
        import numpy as np

        size = int(np.prod(shape))
        return self._cast(self._rng.permutation(size).reshape(shape))

    def b(self, *shape: int) -> Any:
        """Booleans."""
        return self._rng.integers(0, 2, shape).astype(bool)

    def i(self, *values: Any) -> Constant:
        """A constant int64 vector."""
        import numpy as np

        return Constant(np.array(values, np.int64))

    def scalar(self, value: float) -> Constant:
        """A constant scalar of the dtype under test."""
        return Constant(self._cast(value))


Inputs = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Spec:
    """One way to use an operator: its inputs for a dtype, and its attributes."""

    op: str
    inputs: Callable[[Maker], Inputs]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    tag: str = ""  # the first spec of an operator has none and runs with every dtype
    dtypes: tuple[str, ...] = DTYPES
    since: int = 1


def generated() -> Iterator[Case]:
    """All generated cases, in a fixed order."""
    from autoglm.testing.operators import SPECS

    for spec in SPECS:
        for since in versions(spec.op):
            if since < spec.since:
                continue
            for dtype in _dtypes(spec, since):
                case = build(spec, since, dtype)
                if case is not None:
                    yield case


def versions(op: str) -> tuple[int, ...]:
    """The versions of an operator that a model of opset `OLDEST` or newer can name."""
    import onnx

    newest = onnx.defs.onnx_opset_version()
    found = set()
    for opset in range(OLDEST, newest + 1):
        if onnx.defs.has(op, max_inclusive_version=opset, domain=""):
            found.add(onnx.defs.get_schema(op, opset, "").since_version)
    return tuple(sorted(found))


def _dtypes(spec: Spec, since: int) -> tuple[str, ...]:
    """Every dtype at the oldest and the newest version; between them, and for variants, the usual
    floats.
    """
    known = versions(spec.op)
    allowed = tuple(d for d in spec.dtypes if d in schema_dtypes(spec.op, since))
    if spec.tag:
        return tuple(d for d in allowed if d in ("float32", "float16")) or allowed[:1]
    return allowed if since in (known[0], known[-1]) else allowed[:1]


def schema_dtypes(op: str, since: int) -> frozenset[str]:
    """The dtypes of the operator's first typed position."""
    import onnx

    from autoglm.testing.schemas import layout_of

    typed = layout_of(op, since).typed
    position = typed[0] if typed else "i0"  # one dtype only: the schema names it
    schema = onnx.defs.get_schema(op, since, "")
    side = schema.inputs if position[0] == "i" else schema.outputs
    names = {str(t) for t in side[int(position[1:])].types}
    short = {"float": "float32", "double": "float64"}
    plain = {n.removeprefix("tensor(").removesuffix(")") for n in names if n.startswith("tensor(")}
    return frozenset(short.get(n, n) for n in plain)


def build(spec: Spec, since: int, dtype: str) -> Case | None:
    """One case; None where the oracle has no answer."""
    from autoglm.testing.oracle import answer

    name = f"{spec.op}{'_' + spec.tag if spec.tag else ''}@{since}:{dtype}"
    seed = zlib.crc32(f"{spec.op}{spec.tag}{dtype}".encode())
    inputs = spec.inputs(Maker(dtype, seed))
    model = model_of(spec, since, inputs)
    outputs = answer(spec, since, dtype, inputs, model)
    if outputs is None:
        return None
    feeds = tuple(a for a in inputs if a is not None and not isinstance(a, Constant))
    return Case(name, model.SerializeToString(deterministic=True), ((feeds, outputs),))


def model_of(spec: Spec, since: int, inputs: Inputs) -> onnx.ModelProto:
    """A model of one node, with its outputs typed by onnx's own inference."""
    import onnx

    names = ["" if a is None else f"x{k}" for k, a in enumerate(inputs)]
    outputs = [f"y{k}" for k in range(spec.outputs)]
    attributes = {k: v for k, v in spec.attributes.items() if k in _attributes(spec.op, since)}
    node = onnx.helper.make_node(spec.op, names, outputs, name=spec.op, **attributes)
    pairs = [(n, a) for n, a in zip(names, inputs, strict=True) if a is not None]
    feeds = [_info(n, a) for n, a in pairs if not isinstance(a, Constant)]
    weights = [
        onnx.numpy_helper.from_array(a.array, n) for n, a in pairs if isinstance(a, Constant)
    ]
    empty = [onnx.helper.make_empty_tensor_value_info(n) for n in outputs]
    graph = onnx.helper.make_graph([node], "case", feeds, empty, weights)
    opset = onnx.helper.make_opsetid("", since)
    model = onnx.helper.make_model(graph, opset_imports=[opset])
    model.ir_version = max(8, onnx.helper.find_min_ir_version_for([opset]))
    return _typed(onnx.shape_inference.infer_shapes(model, data_prop=True), inputs[0])


def _typed(model: onnx.ModelProto, first: Any) -> onnx.ModelProto:
    """Where onnx infers nothing (functions, mostly), the output is like the first input."""
    array = first.array if isinstance(first, Constant) else first
    for output in model.graph.output:
        if not output.type.tensor_type.elem_type:
            output.CopyFrom(_info(output.name, array))
    return model


def _attributes(op: str, since: int) -> frozenset[str]:
    import onnx

    return frozenset(onnx.defs.get_schema(op, since, "").attributes)


def _info(name: str, array: Any) -> onnx.ValueInfoProto:
    import onnx

    dtype = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor_value_info(name, dtype, array.shape)
