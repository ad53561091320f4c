"""A backend that drives a chip is priced by the chip, over its link, and the plan says so."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from plan.checks import require_prices_add_up, require_runnable
from plan.graphs import MACHINE, chain, table

from autoglm.catalog.roofline import chip_machine
from autoglm.plan import Graph, from_dict, make_plan, to_dict
from autoglm.spec import Capabilities, Chip, Plan, Verdict

CHIP = Chip(
    "K", "maker", "npu", "npu", bandwidth_gbps=100.0, peak_tflops={"fp32": 2.0}, link_gbps=10.0
)
SIZE = 250_000  # 1 MB a tensor
LINK_S = 1e6 / (0.7 * 10e9)


def tables(chip: Chip = CHIP, **fields: object) -> dict[str, Capabilities]:
    npu = table("npu", "MatMul", "Relu", chip=chip, **fields)
    return {"npu": npu, "onnxruntime": table("onnxruntime", "MatMul", "Relu", "Erf")}


def planned(graph: Graph, chip: Chip = CHIP, **fields: object) -> Plan:
    plan = make_plan(
        graph, tables(chip, **fields), backend="npu", machine=MACHINE, prefer_primary=0.5
    )
    require_runnable(graph, plan)
    require_prices_add_up(plan)
    return plan


def test_the_whole_model_costs_the_chips_nodes_one_call_and_the_link() -> None:
    graph = chain("Relu", "Relu", size=SIZE)
    speeds = chip_machine(CHIP, "fp32")

    plan = planned(graph)

    traffic = 2 * 2e6 / (0.6 * 100e9)  # two nodes that read and write 1 MB
    wanted = speeds.dispatch("npu") + 2 * speeds.node_s + traffic + 2 * LINK_S
    assert plan.seconds == pytest.approx(wanted, rel=1e-6)
    assert plan.partitions[0].chip == "K"


def test_a_node_that_only_the_cpu_has_costs_two_partitions_and_two_ways_over_the_link() -> None:
    plan = planned(chain("MatMul", "Relu", "Erf", "Relu", "MatMul", size=SIZE))

    assert [p.backend for p in plan.partitions] == ["npu", "onnxruntime", "npu"]
    assert [b.seconds for b in plan.boundaries] == pytest.approx([LINK_S, LINK_S], rel=1e-6)
    assert [p.chip for p in plan.partitions] == ["K", "", "K"]


def test_from_one_chip_to_another_a_tensor_goes_through_the_host() -> None:
    other = table("acc", "Erf", chip=replace(CHIP, name="L", link_gbps=5.0))
    plan = make_plan(
        chain("Relu", "Erf", size=SIZE),
        {**tables(), "acc": other},
        backend="npu",
        policy=["acc"],
        machine=MACHINE,
    )

    assert [p.chip for p in plan.partitions] == ["K", "L"]
    assert plan.boundaries[0].seconds == pytest.approx(LINK_S + 2 * LINK_S, rel=1e-6)


def test_beside_a_chip_a_call_of_the_host_wakes_its_engine() -> None:
    graph = chain("Erf", size=SIZE)
    slow = replace(MACHINE, wake_s=1e-3)

    beside = make_plan(graph, tables(), backend="npu", machine=slow).seconds
    calm = make_plan(graph, tables(), backend="npu", machine=MACHINE).seconds
    alone = make_plan(
        graph, {"onnxruntime": table("onnxruntime", "Erf")}, backend="onnxruntime", machine=slow
    )

    assert beside - calm == pytest.approx(1e-3)
    assert alone.seconds == pytest.approx(calm)


def test_the_host_keeps_its_own_price() -> None:
    alone = {"onnxruntime": table("onnxruntime", "Erf")}
    graph = chain("Erf", "Erf", size=SIZE)
    plan = make_plan(graph, alone, backend="onnxruntime", machine=MACHINE)

    assert plan.notes == ()
    assert plan.partitions[0].chip == ""
    assert plan.uncertainty == MACHINE.uncertainty


def test_the_plan_says_that_it_is_an_estimate_and_how_far_off_it_may_be() -> None:
    plan = planned(chain("Relu", size=SIZE))

    assert plan.uncertainty == 1.5
    assert "estimated from the catalog: K, not measured" in plan.notes[0]
    assert "within x2.5" in plan.notes[0]
    assert len(plan.notes) == 1


def test_a_figure_that_the_catalog_lacks_is_named_unknown() -> None:
    plan = planned(chain("Relu", size=SIZE), replace(CHIP, link_gbps=None))

    assert plan.notes[1] == "Of K, its link to the host is unknown, 4 GB/s is taken."
    assert plan.uncertainty == 4.0


def test_notes_speak_only_of_chips_that_run_something() -> None:
    plan = planned(chain("Erf", "Erf", size=SIZE))

    assert [p.backend for p in plan.partitions] == ["onnxruntime"]
    assert plan.notes == ()


def test_the_chips_memory_is_the_limit_where_the_table_names_none() -> None:
    plan = planned(chain("Relu", "Relu", size=SIZE), replace(CHIP, memory_bytes=1_500_000))

    assert {r.constraint for r in plan.refusals if r.verdict is Verdict.NO} == {"memory"}


def test_a_plan_survives_json() -> None:
    plan = planned(chain("MatMul", "Erf", "MatMul", size=SIZE))

    assert from_dict(to_dict(plan)) == plan


def test_a_faster_link_never_makes_a_plan_dearer() -> None:
    graph = chain("MatMul", "Erf", "Relu", "Erf", "MatMul", size=SIZE)

    prices = [planned(graph, replace(CHIP, link_gbps=g)).seconds for g in (1.0, 4.0, 16.0, 64.0)]

    assert all(slow >= fast for slow, fast in pairwise(prices))
