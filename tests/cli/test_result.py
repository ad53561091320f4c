"""Outputs in short: what they are, their range, and their values where they are few."""

from __future__ import annotations

import numpy as np
import pytest

from autoglm.cli.output import plain
from autoglm.cli.result import summary
from autoglm.cli.terminal import show_outputs


def test_a_small_tensor_shows_its_values() -> None:
    facts = summary(np.float32([1, 2, 3]))

    assert facts == {
        "kind": "tensor",
        "dtype": "float32",
        "shape": [3],
        "min": 1.0,
        "max": 3.0,
        "mean": 2.0,
        "values": [1.0, 2.0, 3.0],
    }


def test_what_is_not_finite_is_counted_and_not_averaged() -> None:
    facts = summary(np.float32([1, np.nan, np.inf]))

    assert facts["not_finite"] == 2
    assert facts["mean"] == 1.0


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "none"),
        ([np.zeros(2), np.zeros(3)], "sequence"),
        (np.array(["a", "b"], object), "tensor"),
        (np.complex64([1 + 1j]), "tensor"),
        (np.zeros((0, 3)), "tensor"),
        (np.bool_([True]), "tensor"),
    ],
)
def test_every_kind_of_output_can_be_shown(
    value: object, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = summary(value)
    show_outputs({"y": facts}, None)

    assert facts["kind"] == kind
    assert "y" in capsys.readouterr().out


def test_a_type_that_json_lacks_becomes_text() -> None:
    assert plain({"a": (1, {2}), 3: np.float32}) == {"a": [1, [2]], "3": str(np.float32)}
