"""Operator cases as data: a model, its inputs, the right outputs, and how near an answer must
be.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from autoglm.spec import Value

if TYPE_CHECKING:
    import onnx

RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)


@dataclass(frozen=True, slots=True)
class Case:
    """One question to a backend. `judge` is `values`, or `shapes` where the numbers are random."""

    name: str
    model: bytes  # a serialized ModelProto
    data: tuple[tuple[tuple[Value, ...], tuple[Value, ...]], ...]  # (inputs, outputs) by position
    rtol: float | None = None  # None: by dtype, see judge.TOLERANCE
    atol: float | None = None
    judge: str = "values"

    def proto(self) -> onnx.ModelProto:
        """The model as a message."""
        import onnx

        return onnx.load_model_from_string(self.model)


def suite(*, expanded: bool = False) -> Iterator[Case]:
    """The node cases of the installed onnx; `expanded` adds those that spell a function out."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    for case in cases:
        if case.model is None or (not expanded and "_expanded" in case.name):
            continue
        data = tuple((_values(i), _values(o)) for i, o in case.data_sets)
        kind = "shapes" if is_random(case.model) else "values"
        model = case.model.SerializeToString(deterministic=True)
        yield Case(case.name.removeprefix("test_"), model, data, case.rtol, case.atol, kind)


def is_random(model: onnx.ModelProto) -> bool:
    """Whether the answer is drawn: only its dtype and shape can be judged."""
    ops = {node.op_type for node in model.graph.node}
    training = any(n.op_type == "Dropout" and len(n.input) > 2 for n in model.graph.node)
    return bool(ops & RANDOM) or training


def _values(found: Any) -> tuple[Value, ...]:
    return tuple(_value(value) for value in found)


def _value(value: Any) -> Value:
    import numpy as np
    import onnx

    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value if value is None else np.asarray(value)


def with_constants(case: Case) -> Case | None:
    """The same case with every input but the first a constant, as weights and shapes are in real
    models.
    """
    import onnx

    model = case.proto()
    names = [i.name for i in model.graph.input]
    if len(model.graph.node) != 1 or len(names) < 2 or len(case.data) != 1:
        return None
    inputs, outputs = case.data[0]
    if any(v is None or isinstance(v, list) for v in inputs) or model.graph.initializer:
        return None
    for name, value in zip(names[1:], inputs[1:], strict=True):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    del model.graph.input[1:]
    data = ((inputs[:1], outputs),)
    text = model.SerializeToString(deterministic=True)
    return replace(case, name=f"{case.name}~constants", model=text, data=data)


def dynamic(case: Case) -> Case | None:
    """The same case with every dimension of its inputs left open, as exported models leave the
    batch.
    """
    model = case.proto()
    if len(model.graph.node) != 1 or not model.graph.input:
        return None
    for side in (model.graph.input, model.graph.output):
        for value in side:
            if not value.type.HasField("tensor_type"):
                return None
            for index, dim in enumerate(value.type.tensor_type.shape.dim):
                dim.dim_param = f"{value.name}_{index}"
    text = model.SerializeToString(deterministic=True)
    return replace(case, name=f"{case.name}~dynamic", model=text)


def all_cases() -> list[Case]:
    """What a pack is measured with, in a fixed order."""
    from autoglm.testing.generate import generated
    from autoglm.testing.onnx_suite import suite_cases
    from autoglm.testing.operators import SPECS
    from autoglm.testing.restamp import restamped
    from autoglm.testing.special import special

    given = list(suite())
    variants = [(c, with_constants(c)) for c in given]
    constant = [v for _, v in variants if v is not None]
    loose = [d for d in (dynamic(v or c) for c, v in variants) if d is not None]
    moved = restamped([*given, *constant], {spec.op for spec in SPECS} | {"Cast"})
    made = list(generated())
    # The plainest use of every operator at every version, so that what fails with open dimensions
    # can be told from what does not.
    plain = [dynamic(c) for c in made if "_" not in c.name and c.name.endswith(":float32")]
    loose += [c for c in plain if c is not None]
    chains = suite_cases(("simple", "pytorch-operator"))
    return [*given, *constant, *loose, *moved, *chains, *made, *special()]


def plain_first(cases: Sequence[Case]) -> list[Case]:
    """The same cases: one of every operator and version, then those of float32 in turns, then the
    rest in turns; cases with open dimensions are an operator of their own.
    """
    turns: dict[tuple[str, int, bool], list[Case]] = defaultdict(list)
    for case in cases:
        turns[_subject(case)].append(case)
    order = []
    for row in turns.values():
        row.sort(key=lambda case: not _is_float32(case))
        order += [((i > 0, i > 0 and not _is_float32(c), i), c) for i, c in enumerate(row)]
    return [case for _, case in sorted(order, key=lambda pair: pair[0])]


def _subject(case: Case) -> tuple[str, int, bool]:
    model = case.proto()
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    ops = ",".join(node.op_type for node in model.graph.node)
    return ops, opset, case.name.endswith("~dynamic")


def _is_float32(case: Case) -> bool:
    import onnx

    inputs = case.proto().graph.input
    return bool(inputs) and inputs[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
