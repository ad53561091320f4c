"""The order in which operators are raised to fp32 where int8 is too coarse."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from autoglm.plan import graph_of
from autoglm.runtime.sensitive import fewest, fewest_passing, sensitivity


def chain(outlier: int) -> ir.Model:
    """Four products; what the one named by `outlier` reads has one column a thousand times as
    large, which the next one does not see.
    """
    draw = np.random.default_rng(1)
    nodes, held = [], []
    for i in range(4):
        weight = np.linalg.qr(draw.normal(size=(16, 16)))[0].astype(np.float32)
        scale = np.ones(16, np.float32)
        if i == outlier:
            scale[0], weight[0] = 1000, weight[0] / 1000
        names = [f"t{i}", f"s{i}"]
        nodes.append(helper.make_node("Mul", names, [f"u{i}"], name=f"scale{i}"))
        nodes.append(helper.make_node("MatMul", [f"u{i}", f"w{i}"], [f"t{i + 1}"], name=f"mm{i}"))
        held += [numpy_helper.from_array(scale, f"s{i}"), numpy_helper.from_array(weight, f"w{i}")]
    first, last = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 16]) for n in ("t0", "t4")
    )
    graph = helper.make_graph(nodes, "g", [first], [last], held)
    opsets = [helper.make_opsetid("", 13)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def feeds(count: int = 2) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(2)
    return [{"t0": draw.normal(size=(4, 16)).astype(np.float32)} for _ in range(count)]


def test_the_node_that_reads_an_outlier_comes_first() -> None:
    for outlier in range(4):
        model = chain(outlier)
        found = sensitivity(model, graph_of(model), feeds())

        assert next(iter(found)) == f"mm{outlier}"
        assert len(found) == 4
        assert found[f"mm{outlier}"] > 5 * sorted(found.values())[-2]


def test_without_data_the_order_is_from_the_ends() -> None:
    model = chain(0)

    found = sensitivity(model, graph_of(model), [])

    assert list(found) == ["mm3", "mm0", "mm2", "mm1"]
    assert all(math.isnan(e) for e in found.values())


def test_fewest_leaves_what_adds_up_to_the_allowed_error() -> None:
    errors = {"a": 0.4, "b": 0.03, "c": 0.03, "d": 0.04}

    assert fewest(errors, 0.1) == 1
    assert fewest(errors, 0.05) == 2
    assert fewest(errors, 0.04) == 3
    assert fewest(dict.fromkeys("ab", math.nan), 0.1) == 1


def test_the_search_starts_at_the_guess_and_halves() -> None:
    tried: list[int] = []

    def passes(count: int) -> bool:
        tried.append(count)
        return count >= 5

    assert fewest_passing(passes, 12, 30) == 6
    assert tried == [12, 6, 3]
    assert fewest_passing(passes, 30, 30) == 7  # a guess that is too large is halved too
    assert fewest_passing(passes, 1, 2) == 2
