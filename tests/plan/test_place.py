"""Where nodes go, why the others refused, and what it costs."""

from __future__ import annotations

import pytest
from plan.checks import require_runnable
from plan.graphs import MACHINE, chain, judged, node, random_dag, random_tables, table, value

from autoglm.errors import BackendNotFoundError
from autoglm.messages import set_language
from autoglm.plan import Budget, Graph, Machine, Wiring, lacks, make_graph, make_plan, placement
from autoglm.spec import Constraint, Fit, Plan, Verdict, no, unknown, yes

OPS = ("MatMul", "Relu", "Erf", "TopK")
BIG = 4_000_000  # elements: copying them costs more than any node here


def cpu(name: str = "onnxruntime", **fields: object):  # type: ignore[no-untyped-def]
    return table(name, *OPS, **fields)


def backends(plan: Plan) -> list[str]:
    return [p.backend for p in plan.partitions]


def test_a_primary_that_takes_everything_keeps_everything() -> None:
    tables = {"npu": table("npu", *OPS), "onnxruntime": cpu(speed=50.0)}

    plan = make_plan(chain("MatMul", "Erf", "Relu"), tables, backend="npu", machine=MACHINE)

    assert backends(plan) == ["npu"]
    assert plan.fit is Fit.FITS
    assert plan.fallbacks == plan.refusals == plan.boundaries == ()
    assert plan.partitions[0].inputs == ("x",)
    assert plan.partitions[0].outputs == ("t2",)


def test_a_missing_operator_falls_back_and_says_why_and_what_it_costs() -> None:
    tables = {"npu": table("npu", "MatMul", speed=1000.0), "onnxruntime": cpu()}
    graph = chain("MatMul", "MatMul", "Erf", "MatMul", "MatMul", size=100_000)

    plan = make_plan(graph, tables, backend="npu", machine=MACHINE)

    assert backends(plan) == ["npu", "onnxruntime", "npu"]
    assert plan.fit is Fit.FALLBACKS
    (fallback,) = plan.fallbacks
    assert (fallback.node, fallback.op) == ("Erf_2", "Erf")
    assert (fallback.wanted, fallback.placed) == ("npu", "onnxruntime")
    assert fallback.constraint == "op"
    assert fallback.reason == "Erf is not in npu 1.0's table"
    edges = sum(b.seconds for b in plan.boundaries)
    assert fallback.seconds == pytest.approx(plan.partitions[1].seconds + edges)
    assert [(b.tensor, b.producer, b.consumer, b.bytes) for b in plan.boundaries] == [
        ("t1", "p0", "p1", 400_000),
        ("t2", "p1", "p2", 400_000),
    ]


def test_a_tiny_island_is_pulled_back_to_its_neighbours() -> None:
    tables = {"npu": table("npu", "Relu", "MatMul", speed=2.0), "onnxruntime": cpu()}
    graph = chain("Erf", "Relu", "Erf", "Relu", "Erf", size=10)

    plan = make_plan(graph, tables, backend="npu", machine=MACHINE)

    assert backends(plan) == ["onnxruntime"]
    absorbed = [f for f in plan.fallbacks if f.constraint == "absorbed"]
    assert [f.node for f in absorbed] == ["Relu_1", "Relu_3"]
    assert "beside its neighbours" in absorbed[0].reason
    greedy = plan.alternatives[0]
    assert (greedy.name, greedy.partitions) == ("greedy", 5)
    assert greedy.seconds - plan.seconds > 3.9 * 20e-6


def test_a_boundary_too_wide_to_cross_moves_the_cut_to_a_narrow_place() -> None:
    widths = [10, BIG, BIG, 10, 10]
    facts, wiring = [], []
    for i, (op, width) in enumerate(
        zip(("MatMul", "Relu", "Erf", "Relu", "MatMul"), widths, strict=True)
    ):
        facts.append(node(f"{op}_{i}", op, [value(widths[i - 1] if i else 10)], value(width)))
        wiring.append(Wiring((f"t{i - 1}" if i else "x",), (f"t{i}",)))
    graph = make_graph(facts, wiring, inputs={"x": value(10)}, outputs=["t4"])
    tables = {"npu": table("npu", "MatMul", "Relu", speed=1.01), "onnxruntime": cpu()}

    plan = make_plan(graph, tables, backend="npu", machine=MACHINE)

    assert all(b.bytes < BIG for b in plan.boundaries)
    assert placement(plan)["Relu_1"] == "onnxruntime"


def test_policy_error_leaves_refused_nodes_without_a_place() -> None:
    tables = {"npu": table("npu", "MatMul"), "onnxruntime": cpu()}
    graph = chain("MatMul", "Erf", "MatMul")

    plan = make_plan(graph, tables, backend="npu", policy="error", machine=MACHINE)

    assert plan.fit is Fit.NO
    assert plan.unplaced == ("Erf_1",)
    assert backends(plan) == ["npu", "npu"]
    require_runnable(graph, plan)


def test_policy_cpu_means_the_cpu_engines_in_order_and_nothing_else() -> None:
    tables = {
        "npu": table("npu", "MatMul"),
        "gpu": table("gpu", *OPS, speed=1e6),
        "reference": table("reference", *OPS),
        "numpy": cpu("numpy"),
        "openvino": cpu("openvino"),
    }

    plan = make_plan(chain("Erf"), tables, backend="npu", machine=MACHINE)

    assert backends(plan) == ["openvino"]
    assert {r.backend for r in plan.refusals} == {"npu"}


def test_a_list_is_taken_in_its_order() -> None:
    tables = {"npu": table("npu"), "b": cpu("b"), "a": cpu("a")}

    first = make_plan(chain("Erf"), tables, backend="npu", policy=["b", "a"], machine=MACHINE)
    second = make_plan(chain("Erf"), tables, backend="npu", policy=["a", "b"], machine=MACHINE)

    assert (backends(first), backends(second)) == (["b"], ["a"])


@pytest.mark.parametrize("policy", ["cpu", ["gone"], "error"])
def test_a_backend_without_a_table_is_named(policy: object) -> None:
    backend = "npu" if policy == ["gone"] else "gone"

    with pytest.raises(BackendNotFoundError, match=r"'gone'.*npu"):
        make_plan(chain("Erf"), {"npu": table("npu")}, backend=backend, policy=policy)  # type: ignore[arg-type]


def test_the_reference_is_the_last_resort_and_is_said() -> None:
    tables = {
        "npu": table("npu", "MatMul"),
        "onnxruntime": table("onnxruntime", "MatMul", "Relu"),
        "reference": table("reference", *OPS, speed=1e9),
    }
    graph = chain("MatMul", "Relu", "Erf")

    without = make_plan(graph, tables, backend="npu", machine=MACHINE)
    named = make_plan(
        graph, tables, backend="npu", policy=["onnxruntime", "reference"], machine=MACHINE
    )
    allowed = make_plan(graph, tables, backend="npu", allow_reference=True, machine=MACHINE)

    assert without.unplaced == ("Erf_2",)
    for plan in (named, allowed):
        assert [n for n, b in placement(plan).items() if b == "reference"] == ["Erf_2"]
        (note,) = [f.reason for f in plan.fallbacks if f.placed == "reference"]
        assert "reference evaluator" in note


def test_every_refusal_keeps_its_constraint_reason_and_evidence() -> None:
    refusals = {"Erf_0": no(Constraint.RANK, "Erf takes rank <= 1, found 2")}
    tables = {"npu": judged("npu", refusals, OPS), "onnxruntime": table("onnxruntime", "MatMul")}

    plan = make_plan(chain("Erf"), tables, backend="npu", machine=MACHINE)

    first, second = plan.refusals
    assert (first.backend, first.constraint, first.reason) == (
        "npu",
        "rank",
        "Erf takes rank <= 1, found 2",
    )
    assert (second.backend, second.constraint) == ("onnxruntime", "op")
    assert second.reason == "Erf is not in onnxruntime 1.0's table"
    assert first.verdict is second.verdict is Verdict.NO


def test_unknown_is_no_yes() -> None:
    tables = {"npu": judged("npu", {"Erf_0": unknown("no case")}, OPS), "onnxruntime": cpu()}

    plan = make_plan(chain("Erf"), tables, backend="npu", machine=MACHINE)

    assert backends(plan) == ["onnxruntime"]
    assert plan.fallbacks[0].reason == "unknown: not measured; no case"
    assert plan.fallbacks[0].constraint == "unknown"


def test_where_only_unknown_is_left_a_cpu_engine_is_tried_and_the_plan_says_so() -> None:
    verdicts = {"Erf_1": unknown("no case")}
    tables = {
        "npu": judged("npu", verdicts, OPS, speed=100.0),
        "onnxruntime": judged("onnxruntime", verdicts, OPS),
    }

    plan = make_plan(
        chain("MatMul", "Erf", "MatMul", size=BIG), tables, backend="npu", machine=MACHINE
    )

    assert placement(plan)["Erf_1"] == "onnxruntime"
    assert plan.fit is Fit.FALLBACKS
    fallback = next(f for f in plan.fallbacks if f.node == "Erf_1")
    assert "on onnxruntime it is unknown: not measured" in fallback.reason


def test_a_chip_is_given_nothing_on_a_guess_unless_a_pin_asks_for_it() -> None:
    tables = {"npu": judged("npu", {"Erf_1": unknown("no case")}, OPS)}
    graph = chain("MatMul", "Erf", "MatMul")

    plan = make_plan(graph, tables, backend="npu", machine=MACHINE)
    pinned = make_plan(graph, tables, backend="npu", pins={"Erf": "npu"}, machine=MACHINE)

    assert (plan.fit, plan.unplaced) == (Fit.NO, ("Erf_1",))
    assert (pinned.fit, pinned.unplaced) == (Fit.FALLBACKS, ())


@pytest.mark.parametrize(
    ("device", "tried"),
    [("", True), ("cpu", True), ("0", True), ("npu:0", False), ("GPU", False), ("cuda", False)],
)
def test_a_cpu_engine_on_a_chip_tries_nothing(device: str, tried: bool) -> None:
    tables = {"torch": judged("torch", {"Erf_1": unknown("no case")}, OPS)}

    plan = make_plan(chain("Relu", "Erf"), tables, backend="torch", device=device)

    assert (plan.fit is Fit.NO) is not tried


@pytest.mark.parametrize("engine", ["npu", "onnxruntime"])
def test_where_no_fallback_is_allowed_unknown_does_not_fit_and_says_which_and_why(
    engine: str,
) -> None:
    tables = {engine: judged(engine, {"Erf_1": unknown("no case")}, OPS)}

    plan = make_plan(
        chain("MatMul", "Erf", "MatMul"), tables, backend=engine, policy="error", machine=MACHINE
    )

    assert (plan.fit, plan.unplaced) == (Fit.NO, ("Erf_1",))
    (sentence,) = lacks(plan)
    assert sentence.startswith(f"Erf_1 has no place: {engine} says unknown, no case")


def test_a_refused_node_on_an_unknown_engine_says_both() -> None:
    tables = {
        "npu": table("npu"),
        "onnxruntime": judged("onnxruntime", {"Erf_0": unknown("?")}, OPS),
    }

    plan = make_plan(chain("Erf"), tables, backend="npu", machine=MACHINE)

    assert "not in npu 1.0's table" in plan.fallbacks[0].reason
    assert "on onnxruntime it is unknown" in plan.fallbacks[0].reason


def test_pins_by_name_pattern_and_operator() -> None:
    tables = {"npu": table("npu", *OPS), "onnxruntime": cpu()}
    graph = chain("MatMul", "Relu", "Erf", "Relu")

    by_op = make_plan(graph, tables, backend="npu", pins={"Rel*": "onnxruntime"}, machine=MACHINE)
    by_name = make_plan(
        graph, tables, backend="npu", pins={"Relu_1": "onnxruntime"}, machine=MACHINE
    )

    assert {n for n, b in placement(by_op).items() if b == "onnxruntime"} >= {"Relu_1", "Relu_3"}
    assert placement(by_name)["Relu_1"] == "onnxruntime"
    assert "Relu_1" not in {f.node for f in by_name.fallbacks}, "it runs where it was asked to"


def test_the_first_pattern_that_matches_counts() -> None:
    tables = {"npu": table("npu", *OPS), "a": cpu("a"), "b": cpu("b")}
    pins = {"Erf_1": "a", "Erf*": "b"}
    graph = chain("Erf", "Erf", "Erf", size=BIG)

    plan = make_plan(graph, tables, backend="npu", policy=["a", "b"], pins=pins, machine=MACHINE)

    assert list(placement(plan).values()) == ["b", "a", "b"]


def test_a_pin_to_a_backend_that_refuses_is_a_violation_that_names_it() -> None:
    tables = {"npu": table("npu", "MatMul"), "onnxruntime": cpu()}

    plan = make_plan(chain("Erf"), tables, backend="npu", pins={"Erf": "npu"}, machine=MACHINE)

    assert plan.fit is Fit.NO
    assert plan.violations == (
        "Pin 'Erf' asks for npu, which refuses node 'Erf_0': Erf is not in npu 1.0's table.",
    )


def test_a_pin_to_a_backend_without_a_table_is_a_violation() -> None:
    plan = make_plan(
        chain("Erf"), {"npu": table("npu", *OPS)}, backend="npu", pins={"*": "tpu"}, machine=MACHINE
    )

    assert plan.violations == ("Pin '*' names backend 'tpu', which has no capability table here.",)


def test_a_pin_may_name_a_backend_outside_the_policy() -> None:
    tables = {"npu": table("npu", *OPS), "gpu": cpu("gpu")}
    graph = chain("MatMul", "Erf")

    plan = make_plan(
        graph, tables, backend="npu", policy="error", pins={"Erf": "gpu"}, machine=MACHINE
    )

    assert placement(plan) == {"MatMul_0": "npu", "Erf_1": "gpu"}
    assert plan.fit is Fit.FITS


def test_a_budget_that_no_plan_keeps_is_broken_in_sentences() -> None:
    tables = {"npu": table("npu", "MatMul", speed=1000.0), "onnxruntime": cpu()}
    graph = chain("MatMul", "Erf", "MatMul", size=100_000)
    budget = Budget(max_fallback_time_pct=1.0, max_partitions=0, forbid=("Erf",))

    plan = make_plan(graph, tables, backend="npu", budget=budget, machine=MACHINE)

    assert plan.fit is Fit.NO
    share, count, forbidden = plan.violations
    assert share.startswith("Fallbacks may take 1 % of the predicted time")
    assert count == "The plan may have 0 partition(s) (budget.max_partitions), found 3."
    assert "Erf may not fall back" in forbidden
    assert "'Erf_1' runs on onnxruntime" in forbidden


def test_a_dearer_plan_within_budget_is_preferred() -> None:
    tables = {"npu": table("npu", "MatMul", speed=1000.0), "onnxruntime": cpu()}
    graph = chain("MatMul", "MatMul", "Erf", "MatMul", "MatMul", size=100_000)

    plan = make_plan(graph, tables, backend="npu", budget=Budget(max_partitions=1), machine=MACHINE)

    assert backends(plan) == ["onnxruntime"]
    assert plan.violations == ()


def test_a_forbidden_operator_is_not_absorbed() -> None:
    tables = {"npu": table("npu", "Relu", speed=2.0), "onnxruntime": cpu()}
    graph = chain("Erf", "Relu", "Erf", size=10)

    plan = make_plan(graph, tables, backend="npu", budget=Budget(forbid=("Relu",)), machine=MACHINE)

    assert placement(plan)["Relu_1"] == "npu"
    assert plan.violations == ()


def test_a_precision_that_the_primary_lacks_is_refused_with_its_reason() -> None:
    lacks = {"fp16": no(Constraint.PRECISION, "BM1684 has no fp16 units")}
    tables = {
        "npu": table("npu", *OPS, precisions=lacks),
        "onnxruntime": cpu(precisions={"fp16": yes()}),
    }

    plan = make_plan(chain("Erf"), tables, backend="npu", precision="fp16", machine=MACHINE)

    assert backends(plan) == ["onnxruntime"]
    assert plan.partitions[0].precision == "fp16"
    assert plan.refusals[0].constraint == "precision"
    assert plan.fallbacks[0].reason == "BM1684 has no fp16 units"


def test_where_no_engine_has_the_precision_a_fallback_runs_in_fp32_and_says_so() -> None:
    lacks = {"int8": no(Constraint.PRECISION, "no int8 kernels")}
    tables = {
        "npu": table("npu", "MatMul", precisions={"int8": yes()}, speed=1000.0),
        "numpy": table("numpy", *OPS, precisions=lacks),
    }
    graph = chain("MatMul", "Erf", "MatMul", size=100_000)

    plan = make_plan(graph, tables, backend="npu", precision="int8", machine=MACHINE)

    assert [(p.backend, p.precision) for p in plan.partitions] == [
        ("npu", "int8"),
        ("numpy", "fp32"),
        ("npu", "int8"),
    ]
    assert [b.kind for b in plan.boundaries] == ["copy+cast", "copy+cast"]
    assert plan.fallbacks[0].reason.endswith("on numpy it runs in fp32")


def test_a_silent_table_has_fp32_and_nothing_else_for_certain() -> None:
    tables = {"npu": table("npu", *OPS)}

    assert make_plan(chain("Erf"), tables, backend="npu", machine=MACHINE).fit is Fit.FITS
    half = make_plan(chain("Erf"), tables, backend="npu", precision="fp16", machine=MACHINE)
    assert half.fit is Fit.NO
    assert half.refusals[0].verdict is Verdict.UNKNOWN
    assert "does not say whether it runs in fp16" in half.refusals[0].reason


def weighted(count: int, size: int) -> Graph:
    facts, wiring = [], []
    for i in range(count):
        weight = value(size, constant=True)
        facts.append(node(f"MatMul_{i}", "MatMul", [value(10), weight], value(10)))
        wiring.append(Wiring((f"t{i - 1}" if i else "x",), (f"t{i}",), (f"w{i}",)))
    weights = {f"w{i}": 4 * size for i in range(count)}
    return make_graph(
        facts, wiring, inputs={"x": value(10)}, outputs=[f"t{count - 1}"], weights=weights
    )


def test_nodes_beyond_the_memory_are_refused_with_limit_and_need() -> None:
    tables = {"npu": table("npu", *OPS, memory_bytes=10_000, speed=1e6), "onnxruntime": cpu()}

    plan = make_plan(weighted(4, 1000), tables, backend="npu", machine=MACHINE)

    refused = [r for r in plan.refusals if r.constraint == "memory"]
    assert [r.node for r in refused] == ["MatMul_2", "MatMul_3"]
    assert "npu holds 10000 bytes" in refused[0].reason
    assert "need 12080" in refused[0].reason


def test_a_weight_that_two_nodes_share_counts_once() -> None:
    graph = weighted(4, 1000)
    nodes = [n.facts for n in graph.nodes]
    wiring = [Wiring(n.inputs, n.outputs, ("w0",)) for n in graph.nodes]
    shared = make_graph(
        nodes, wiring, inputs={"x": value(10)}, outputs=["t3"], weights={"w0": 4000}
    )
    tables = {"npu": table("npu", *OPS, memory_bytes=4_200)}

    assert make_plan(shared, tables, backend="npu", policy="error", machine=MACHINE).fit is Fit.FITS


def test_layouts_that_differ_are_priced() -> None:
    facts = [
        node("Conv_0", "Conv", [value(1, 8, 32, 32), value(8, 8, 1, 1)], value(1, 8, 32, 32)),
        node("Erf_1", "Erf", [value(1, 8, 32, 32)], value(1, 8, 32, 32)),
    ]
    graph = make_graph(
        facts, [Wiring(("x",), ("t",)), Wiring(("t",), ("y",))], inputs=["x"], outputs=["y"]
    )
    tables = {
        "npu": table("npu", "Conv", layouts=("NC1HWC0",)),
        "onnxruntime": table("onnxruntime", "Erf"),
    }

    plan = make_plan(graph, tables, backend="npu", machine=MACHINE)

    (edge,) = plan.boundaries
    assert edge.kind == "copy+layout"
    assert edge.seconds == pytest.approx(edge.bytes / 5e9 + edge.bytes / 1e9)
    assert [p.layout for p in plan.partitions] == ["NC1HWC0", "NCHW"]


def test_preferring_the_primary_keeps_what_it_takes_for_a_small_gain() -> None:
    tables = {"npu": table("npu", "MatMul", "Relu"), "onnxruntime": cpu()}
    graph = chain("MatMul", "MatMul", "Erf", "MatMul", "MatMul", size=500_000)

    cheapest = make_plan(graph, tables, backend="npu", machine=MACHINE)
    loyal = make_plan(graph, tables, backend="npu", machine=MACHINE, prefer_primary=10.0)

    assert backends(cheapest) == ["onnxruntime"]
    assert backends(loyal) == ["npu", "onnxruntime", "npu"]
    assert loyal.seconds > cheapest.seconds
    assert [f.node for f in loyal.fallbacks] == ["Erf_2"]


def test_the_same_question_has_the_same_answer_whatever_the_order_of_tables() -> None:
    graph = random_dag(120, 5)
    tables = random_tables(graph, 5, ("a", "b", "c"))
    turned = dict(reversed(tables.items()))

    plans = [
        make_plan(graph, t, backend="a", policy=["b", "c"], machine=MACHINE)
        for t in (tables, turned, tables)
    ]

    assert plans[0] == plans[1] == plans[2]


def test_a_graph_without_nodes_has_an_empty_plan() -> None:
    plan = make_plan(make_graph([], []), {"npu": table("npu")}, backend="npu")

    assert plan.partitions == ()
    assert plan.fit is Fit.FITS
    assert plan.seconds == 0


def test_the_plan_says_how_sure_it_is() -> None:
    machine = Machine(uncertainty=0.7)

    assert (
        make_plan(chain("Erf"), {"a": table("a", "Erf")}, backend="a", machine=machine).uncertainty
        == 0.7
    )


def test_reasons_violations_and_notes_are_chinese_when_asked_for() -> None:
    tables = {
        "npu": judged("npu", {"Erf_1": unknown("no case")}, ("MatMul", "Erf")),
        "onnxruntime": cpu(),
    }
    graph = chain("MatMul", "Erf", "Relu", "MatMul", size=BIG)
    budget = Budget(max_partitions=0, forbid=("Relu",))

    set_language("zh")
    try:
        plan = make_plan(graph, tables, backend="npu", machine=MACHINE, budget=budget)
    finally:
        set_language("en")

    told = {r.node: r.reason for r in plan.refusals}
    assert told["Relu_2"] == "Relu 不在 npu 1.0 的能力表中"
    reasons = [f.reason for f in plan.fallbacks if f.node == "Erf_1"]
    assert reasons == ["未知：未实测；no case"]
    assert any("方案最多可有 0 个分区" in v for v in plan.violations)
