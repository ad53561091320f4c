"""What every plan must be, checked from the plan and the graph alone."""

from __future__ import annotations

from autoglm.plan import Graph
from autoglm.spec import Plan


def require_runnable(graph: Graph, plan: Plan) -> None:
    """Run the partitions in order, on names alone: every node once, every input there in time."""
    producer = {t: n.name for n in graph.nodes for t in n.outputs}
    lost = set(plan.unplaced)
    reads = {n.name: n.inputs for n in graph.nodes}
    gives = {n.name: n.outputs for n in graph.nodes}
    order = {n.name: i for i, n in enumerate(graph.nodes)}
    held = set(graph.inputs)
    done: list[str] = []
    for part in plan.partitions:
        assert part.nodes, f"{part.id} is empty"
        assert [order[n] for n in part.nodes] == sorted(order[n] for n in part.nodes)
        inside: set[str] = set()
        for name in part.inputs:
            assert name in held or producer.get(name) in lost, f"{part.id} reads {name} too early"
            assert name not in inside
        for node in part.nodes:
            for name in reads[node]:
                assert name in inside or name in part.inputs, f"{node} reads {name} from nowhere"
            inside |= set(gives[node])
        assert set(part.outputs) <= inside
        held |= set(part.outputs)
        done += part.nodes
    assert sorted([*done, *plan.unplaced]) == sorted(order)
    assert len(done) == len(set(done))
    if not lost:
        assert set(graph.outputs) <= held


def require_convex(graph: Graph, plan: Plan) -> None:
    """No path leaves a partition and comes back, by walking every path from every partition."""
    home = {n: p.id for p in plan.partitions for n in p.nodes}
    after: dict[str, set[str]] = {n.name: set() for n in graph.nodes}
    for tensor in graph.tensors:
        if tensor.producer:
            after[tensor.producer] |= set(tensor.consumers)
    for part in plan.partitions:
        outside = [s for n in part.nodes for s in after[n] if home.get(s) != part.id]
        seen = set(outside)
        while outside:
            for following in after[outside.pop()] - seen:
                seen.add(following)
                outside.append(following)
        back = {n for n in seen if home.get(n) == part.id}
        assert not back, f"a path leaves {part.id} and comes back at {sorted(back)}"


def require_prices_add_up(plan: Plan) -> None:
    """The plan's time is its partitions' and its boundaries'."""
    total = sum(p.seconds for p in plan.partitions) + sum(b.seconds for b in plan.boundaries)
    assert abs(plan.seconds - total) <= 1e-12 + 1e-9 * total
    parts = {p.id: p for p in plan.partitions}
    for edge in plan.boundaries:
        assert edge.tensor in parts[edge.producer].outputs
        assert edge.tensor in parts[edge.consumer].inputs
