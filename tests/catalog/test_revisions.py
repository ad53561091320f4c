"""Which revisions of an operator say the same of a node."""

from __future__ import annotations

from typing import Any

import pytest

from autoglm.catalog.revisions import extra_attributes, says_same
from autoglm.spec import NodeFacts, ValueFacts


def node(op: str, since: int, inputs: int = 1, outputs: int = 1, **attributes: Any) -> NodeFacts:
    value = ValueFacts("float32", (1, 4, 8, 8))
    return NodeFacts("n", op, since, (value,) * inputs, (value,) * outputs, attributes)


@pytest.mark.parametrize(
    ("found", "opset"),
    [
        (node("Identity", 25), 8),
        (node("Cast", 24, to=1), 13),
        (node("Reshape", 21, 2), 14),
        (node("BatchNormalization", 15, 5), 9),
        (node("AveragePool", 22, kernel_shape=(2, 2)), 11),
        (node("Pad", 21, 2, mode="reflect"), 18),
        (node("Conv", 22, 2), 1),
    ],
)
def test_a_revision_that_widened_only_dtypes_says_the_same(found: NodeFacts, opset: int) -> None:
    assert says_same(found, opset)


@pytest.mark.parametrize(
    ("found", "opset"),
    [
        (node("Softmax", 13), 12),  # another default axis, and flattening
        (node("Gelu", 20), 18),  # not there yet
        (node("AveragePool", 19, ceil_mode=1), 18),
        (node("AveragePool", 19, dilations=(2, 2)), 18),
        (node("Cast", 19, saturate=0), 18),
        (node("Pad", 19, 2, mode="wrap"), 18),
        (node("Squeeze", 13, 2), 11),  # axes moved from an attribute to an input
        (node("GridSample", 20, 2), 16),  # its modes were renamed
        (node("GroupNormalization", 21, 3), 18),  # its scale has another length
        (node("Clip", 11, 3), 6),
    ],
)
def test_a_revision_that_changed_its_meaning_does_not(found: NodeFacts, opset: int) -> None:
    assert not says_same(found, opset)


def test_attributes_that_the_older_revision_lacks_are_named() -> None:
    assert extra_attributes("Cast", 19, 18) == {"saturate"}
    assert extra_attributes("Relu", 14, 13) == frozenset()
