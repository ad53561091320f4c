"""Inferred and bound shapes."""

from __future__ import annotations

import resource

import numpy as np
import onnx_ir as ir
import pytest
from models import Builder, branch, cnn, transformer

from autoglm.errors import InputError
from autoglm.rewrite.facts import dims, node_facts
from autoglm.rewrite.prepare import prepare
from autoglm.rewrite.shapes import bind_shapes, infer_shapes


def forget(model: ir.Model) -> ir.Model:
    for node in model.graph:
        for value in node.outputs:
            value.shape = value.type = None
    return model


def test_every_value_gets_type_and_shape() -> None:
    model = forget(cnn(batch="n"))

    inferred = infer_shapes(model)

    assert [f.outputs[0].shape for f in node_facts(inferred)][-1] == ("n", 5)
    assert all(f.outputs[0].dtype == "float32" for f in node_facts(inferred))
    assert model.graph[0].outputs[0].shape is None  # the original is untouched


def test_bodies_and_sequences_are_inferred_too() -> None:
    inferred = infer_shapes(forget(branch()))
    assert node_facts(inferred)[1].body[0].outputs[0].shape == (2, 4)

    b = Builder()
    s = b.op("SplitToSequence", b.input("x", [4, 2]), axis=0, name="split")
    facts = node_facts(infer_shapes(forget(b.model(s))))
    assert (facts[0].outputs[0].kind, facts[0].outputs[0].dtype) == ("sequence", "float32")


def test_weights_are_not_needed_and_come_back_as_they_were() -> None:
    model = cnn(channels=64)
    inferred = infer_shapes(model)

    assert list(inferred.graph.initializers) == list(model.graph.initializers)
    assert [v.name for v in inferred.graph.inputs] == ["image"]


def test_binding_fills_symbols_everywhere() -> None:
    bound = bind_shapes(transformer(batch="n", sequence="s"), {"x": (2, 7, 16)})

    assert all(isinstance(d, int) for f in node_facts(bound) for d in f.outputs[0].shape or ())
    assert dims(bound.graph.outputs[0]) == (2, 7, 16)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"nope": (1,)}, r"no input named 'nope'; its inputs: image"),
        ({"image": (1, 3, 8)}, r"'image' has 4 dimensions .*, found 3 in \[1, 3, 8\]"),
        ({"image": (1, 4, 8, 8)}, r"dimension 1 is 3 in the model, found 4"),
        ({"image": (-1, 3, 8, 8)}, r"whole numbers of at least 0"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_by_name(
    shapes: dict[str, tuple[int, ...]], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        bind_shapes(cnn(batch="n"), shapes)


def test_one_symbol_has_one_value() -> None:
    b = Builder()
    x, y = b.input("x", ["n", 2]), b.input("y", ["n", 2])
    model = b.model(b.op("Add", x, y))

    with pytest.raises(InputError, match=r"'y': dimension 0 \(n\) is 3 in input 'x', found 4"):
        bind_shapes(model, {"x": (3, 2), "y": (4, 2)})
    assert dims(bind_shapes(model, {"x": (3, 2)}).graph.inputs[1]) == (3, 2)


@pytest.mark.parametrize("reader", ["Gather", "Concat", "Add", "Unsqueeze", "Cast"])
@pytest.mark.parametrize("computed", [False, True])
def test_a_vector_that_is_only_described_takes_no_memory(reader: str, computed: bool) -> None:
    b = Builder()
    size = b.constant([1 << 40], np.int64)
    if computed:
        size = b.op("Mul", *[b.constant([1 << 20], np.int64)] * 2)
    huge = b.op("ConstantOfShape", size)
    arguments = {
        "Gather": ((huge, b.constant([0], np.int64)), {}),
        "Concat": ((huge, huge), {"axis": 0}),
        "Add": ((huge, huge), {}),
        "Unsqueeze": ((huge, b.constant([0], np.int64)), {}),
        "Cast": ((huge,), {"to": 7}),
    }
    given, attributes = arguments[reader]
    b.op("Shape", b.input("x", [2, "n"]))  # asks for the values of shapes
    model = b.model(b.op(reader, *given, **attributes), check=False)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    infer_shapes(model)
    prepare(model)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_the_values_of_shapes_are_followed() -> None:
    b = Builder()
    x = b.input("x", [3, 4, 5])
    first = b.op("Slice", b.op("Shape", x), *(b.constant([i], np.int64) for i in (0, 2)))
    y = b.op("Reshape", x, b.op("Concat", first, b.constant([-1], np.int64), axis=0))

    assert dims(infer_shapes(b.model(y)).graph.outputs[0]) == (3, 4, 5)
