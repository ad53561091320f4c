"""Vendor operator lists as tables: rows, restrictions, and what is left unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.catalog.documented import _LIMITS, capabilities, pick_chip, read_document
from autoglm.errors import ConfigError
from autoglm.spec import Constraint, Evidence, NodeFacts, ValueFacts, Verdict

BACKENDS = Path(__file__).parents[2] / "src/autoglm/backends"
FILES = sorted(BACKENDS.glob("ascend/onnx.toml")) + sorted(BACKENDS.glob("c*/*.toml"))

TEXT = """
toolkit = "Vendor 1"
source = "manual, chapter 3"
counts = "{counts}"
complete = {complete}

[groups]
F = "float32 float16"

[ops]
Relu = ["8-18: F"]
Cast = ["8-18"]
Softmax = ["8-12: F"]

[refused]
names = "Det"

[limits]
Relu = ["rank 4"]
"""


def document(folder: Path, counts: str = "opset", complete: str = "false", more: str = "") -> Any:
    path = folder / f"{counts}-{complete}-{len(more)}.toml"
    path.write_text(
        TEXT.format(counts=counts, complete=complete).replace("[groups]", more + "\n[groups]")
    )
    return read_document(path)


def fact(
    op: str, since: int, dtype: str = "float32", rank: int = 4, **attributes: Any
) -> NodeFacts:
    value = ValueFacts(dtype, (2,) * rank)
    return NodeFacts("n", op, since, (value,), (value,), attributes)


def test_a_listed_operator_is_a_yes_by_document(tmp_path: Path) -> None:
    verdict = document(tmp_path).support(fact("Relu", 14))

    assert (verdict.verdict, verdict.evidence) == (Verdict.YES, Evidence.DOCUMENT)


def test_an_operator_listed_as_not_supported_is_a_no_with_the_source(tmp_path: Path) -> None:
    verdict = document(tmp_path).support(fact("Det", 11))

    assert verdict.verdict is Verdict.NO
    assert verdict.reason == "Vendor 1: Det is listed as not supported (manual, chapter 3)"


@pytest.mark.parametrize(
    ("complete", "verdict"), [("true", Verdict.NO), ("false", Verdict.UNKNOWN)]
)
def test_what_is_not_listed_is_a_no_only_in_a_complete_list(
    tmp_path: Path, complete: str, verdict: Verdict
) -> None:
    assert document(tmp_path, complete=complete).support(fact("Erf", 13)).verdict is verdict


def test_a_dtype_that_is_not_listed_is_refused_and_named(tmp_path: Path) -> None:
    verdict = document(tmp_path).support(fact("Relu", 14, "int32"))

    assert verdict.constraint is Constraint.DTYPE
    assert "Relu takes float16, float32; found int32" in verdict.reason


def test_a_row_without_dtypes_says_nothing_of_them(tmp_path: Path) -> None:
    assert document(tmp_path).support(fact("Cast", 13, "complex64")).ok


def test_an_opset_beyond_the_rows_is_a_no_or_unknown_as_the_file_says(tmp_path: Path) -> None:
    # Softmax of opset 13 means something else than that of 12.
    refused = document(tmp_path).support(fact("Softmax", 13))
    left = document(tmp_path, more="bounded = false").support(fact("Softmax", 13))

    assert (refused.verdict, refused.constraint) == (Verdict.NO, Constraint.OPSET)
    assert "opset 8 to 12 is listed; found Softmax of opset 13" in refused.reason
    assert left.verdict is Verdict.UNKNOWN


def test_a_revision_that_only_widened_dtypes_counts_as_the_older_one(tmp_path: Path) -> None:
    assert document(tmp_path).support(fact("Cast", 21)).ok
    assert not document(tmp_path, counts="since").support(fact("Cast", 21)).ok


def test_a_restriction_states_its_limit_and_what_was_found(tmp_path: Path) -> None:
    verdict = document(tmp_path).support(fact("Relu", 14, rank=3))

    assert verdict.reason == "Relu: rank 4 is taken; found 3 (manual, chapter 3)"


def test_a_restriction_on_what_is_not_known_is_unknown(tmp_path: Path) -> None:
    value = ValueFacts("float32", None)

    verdict = document(tmp_path).support(NodeFacts("n", "Relu", 14, (value,), (value,)))

    assert verdict.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_shipped_list_names_its_source_and_only_known_words(path: Path) -> None:
    found = read_document(path)

    assert "@" in found.source or "docs/" in found.source
    assert found.toolkit
    assert {limit.split()[0] for limits in found.limits.values() for limit in limits} <= set(
        _LIMITS
    )
    assert set(found.limits) <= set(found.rows)
    assert not found.refused & set(found.rows)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_shipped_list_holds_real_operators_and_dtypes(path: Path) -> None:
    import onnx

    from autoglm.tensor.dtype import DTYPES

    known = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    found = read_document(path)
    dtypes = {d for rows in found.rows.values() for *_, names in rows for d in names}

    assert dtypes <= {*DTYPES, "any"}
    # Old experimental operators of onnx's first year, which the vendors still list.
    assert set(found.rows) | found.refused <= known | {"ImageScaler", "ParametricSoftplus"} | {
        "ScaledTanh",
        "Affine",
        "Crop",
        "DynamicSlice",
    }
    assert all(0 < first <= last for rows in found.rows.values() for first, last, _ in rows)


dims = st.one_of(st.none(), st.lists(st.sampled_from([0, 1, 2, 4000, "n", None]), max_size=5))
values = st.builds(
    ValueFacts,
    st.sampled_from(["", "float32", "int64", "string"]),
    dims.map(lambda d: d and tuple(d)),
)
nodes = st.builds(
    NodeFacts,
    st.just("n"),
    st.sampled_from(
        ["Relu", "TopK", "Resize", "LSTM", "If", "Pad", "DeformConv", "EyeLike", "OneHot", "Cast"]
    ),
    st.integers(1, 28),
    st.lists(st.one_of(st.none(), values), max_size=4).map(tuple),
    st.lists(values, min_size=1, max_size=3).map(tuple),
    st.dictionaries(
        st.sampled_from(["axis", "mode", "pads", "layout", "activations", "sorted", "to"]),
        st.one_of(st.integers(-1, 3), st.text(max_size=5), st.lists(st.integers(), max_size=4)),
        max_size=3,
    ),
)


@given(st.sampled_from(FILES), nodes)
def test_no_node_is_too_strange_for_a_verdict(path: Path, node: NodeFacts) -> None:
    verdict = read_document(path).support(node)

    assert verdict.ok or verdict.reason


def test_a_table_carries_what_the_chip_is(tmp_path: Path) -> None:
    chip = pick_chip("ascend", "Ascend310P3")

    found = capabilities(document(tmp_path), chip, {})

    assert (found.backend, found.chip, found.memory_bytes) == ("ascend", chip, chip.memory_bytes)
    assert (found.complete, found.evidence) == (False, Evidence.DOCUMENT)


def test_a_chip_of_another_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match="driven by backend ascend, not by cuda"):
        pick_chip("cuda", "Ascend310P3")
