"""Every concept survives JSON, and data that does not fit is named by its place."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm.bundle.codec import decode, encode
from autoglm.errors import BundleError
from autoglm.spec import Artifact, Certificate, Plan, TensorInfo

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)
SAFE = st.floats(allow_nan=False)


@pytest.mark.parametrize("kind", [TensorInfo, Artifact, Plan, Certificate])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_concept_survives_json(kind: type[Any], data: st.DataObject) -> None:
    st.register_type_strategy(float, SAFE)
    infos = st.builds(TensorInfo)
    values = st.builds(Artifact, meta=st.dictionaries(st.text(max_size=3), JSON, max_size=2)) if (
        kind is Artifact
    ) else infos if kind is TensorInfo else st.builds(kind)  # fmt: skip
    value = data.draw(values)

    text = json.dumps(encode(value), allow_nan=False)

    assert decode(kind, json.loads(text)) == value


@given(JSON)
def test_what_does_not_fit_is_refused_and_never_crashes(value: Any) -> None:
    with pytest.raises(BundleError):
        decode(Certificate, value)


def test_numbers_of_numpy_and_those_that_json_lacks() -> None:
    found = encode([np.float32(0.5), np.int64(3), np.bool_(True), float("nan"), float("-inf")])

    assert json.dumps(found) == '[0.5, 3, true, "nan", "-inf"]'


def test_unknown_keys_are_passed_over_and_places_are_named() -> None:
    data = encode(TensorInfo("x", "float32", (1, "n", None)))

    assert decode(TensorInfo, {**data, "colour": "red"}) == TensorInfo(
        "x", "float32", (1, "n", None)
    )
    with pytest.raises(BundleError, match=r"info\.shape\[1\]|info\.shape"):
        decode(TensorInfo, {**data, "shape": [1, 2.5]}, "info")
    with pytest.raises(BundleError, match="'no' or 'unknown'"):
        decode(Plan, {"backend": "", "precision": "", "partitions": [], "refusals": [
            {"node": "", "op": "", "backend": "", "verdict": "maybe"}]})  # fmt: skip
    with pytest.raises(BundleError, match="a number, found text"):
        decode(Plan, {"backend": "", "precision": "", "partitions": [], "seconds": "fast"})
