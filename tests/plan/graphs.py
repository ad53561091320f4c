"""Small and large planning graphs, hand-made tables, and the slow, obviously right planner."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product

from autoglm.plan import Graph, Machine, Wiring, make_graph
from autoglm.plan.options import choose_options
from autoglm.plan.problem import Problem, make_problem
from autoglm.spec import (
    Capabilities,
    Constraint,
    Evidence,
    NodeFacts,
    OpRule,
    Support,
    ValueFacts,
    no,
    yes,
)

MACHINE = Machine(dispatch_s={"": 20e-6}, source="test")


def table(name: str, *ops: str, speed: float = 1.0, **fields: object) -> Capabilities:
    """A backend that takes these operators and nothing else."""
    rows = {op: OpRule(evidence=Evidence.MEASURED) for op in ops}
    return Capabilities(name, f"{name} 1.0", rows, speed=speed, **fields)  # type: ignore[arg-type]


def judged(
    name: str, verdicts: Mapping[str, Support], ops: Sequence[str], **fields: object
) -> Capabilities:
    """A backend that takes these operators, but gives these verdicts to the nodes named."""

    def verdict(node: NodeFacts) -> Support:
        return verdicts.get(node.name, yes())

    rows = {op: OpRule(when=verdict) for op in ops}
    return Capabilities(name, f"{name} 1.0", rows, **fields)  # type: ignore[arg-type]


def value(*shape: int, dtype: str = "float32", constant: bool = False) -> ValueFacts:
    return ValueFacts(dtype, shape, constant)


def node(
    name: str, op: str, inputs: Sequence[ValueFacts], output: ValueFacts, **attributes: object
) -> NodeFacts:
    return NodeFacts(name, op, 13, tuple(inputs), (output,), attributes)


def chain(*ops: str, size: int = 1000) -> Graph:
    """x -> op0 -> t0 -> op1 -> ...; node names are `op_index`."""
    facts, wiring = [], []
    for i, op in enumerate(ops):
        facts.append(node(f"{op}_{i}", op, [value(1, size)], value(1, size)))
        wiring.append(Wiring((f"t{i - 1}" if i else "x",), (f"t{i}",)))
    last = (f"t{len(ops) - 1}",) if ops else ()
    return make_graph(facts, wiring, inputs={"x": value(1, size)}, outputs=last)


def dag(edges: Sequence[Sequence[int]], ops: Sequence[str], sizes: Sequence[int]) -> Graph:
    """Node i reads the outputs of `edges[i]` (all below i), or the graph's input."""
    facts, wiring = [], []
    for i, (parents, op, size) in enumerate(zip(edges, ops, sizes, strict=True)):
        inputs = [value(sizes[p]) for p in parents] or [value(10)]
        facts.append(node(f"n{i}", op, inputs, value(size)))
        wiring.append(Wiring(tuple(f"t{p}" for p in parents) or ("x",), (f"t{i}",)))
    read = {p for parents in edges for p in parents}
    outputs = [f"t{i}" for i in range(len(ops)) if i not in read]
    return make_graph(facts, wiring, inputs={"x": value(10)}, outputs=outputs)


def random_dag(
    count: int,
    seed: int,
    *,
    reach: int = 4,
    ops: int = 6,
    largest: int = 60_000,
    loose: bool = True,
) -> Graph:
    """Nodes that read one or two of the `reach` before them, or (`loose`) the graph's input."""
    draw = random.Random(seed)
    parents = (0, 1, 1, 1, 2, 2) if loose else (1, 1, 2)
    edges = [
        sorted({draw.randrange(max(0, i - reach), i) for _ in range(draw.choice(parents))})
        if i
        else []
        for i in range(count)
    ]
    kinds = [f"Op{draw.randrange(ops)}" for _ in range(count)]
    return dag(edges, kinds, [draw.randint(1, largest) for _ in range(count)])


def random_tables(
    graph: Graph, seed: int, names: Sequence[str], *, refuse: float = 0.3
) -> dict[str, Capabilities]:
    """Each backend but the last refuses a share of the nodes; the last takes everything."""
    draw = random.Random(seed)
    kinds = sorted({n.op for n in graph.nodes})
    tables = {}
    for name in names[:-1]:
        refused = {
            n.name: no(Constraint.ATTRIBUTE, "drawn by lot")
            for n in graph.nodes
            if draw.random() < refuse
        }
        tables[name] = judged(name, refused, kinds, speed=draw.choice((1.0, 2.0, 8.0)))
    tables[names[-1]] = table(names[-1], *kinds)
    return tables


def best_by_force(problem: Problem) -> int:
    """The cheapest of all labellings and all ways to run them in steps of one backend each."""
    return min(
        _cheapest_sequence(problem, labels)
        for labels in product(*(options or (-1,) for options in problem.options))
    )


def _cheapest_sequence(problem: Problem, labels: Sequence[int]) -> int:
    size = problem.size
    before = [sum(1 << p for p in problem.predecessors[v]) for v in range(size)]
    nodes = sum(problem.node_cost(v, labels[v]) for v in range(size))

    def steps(done: int, label: int) -> Iterator[int]:
        # Every set of nodes of `label` that may run right after `done`, grown one node at a time.
        seen, stack = set(), [0]
        while stack:
            step = stack.pop()
            for v in range(size):
                bit = 1 << v
                if (done | step) & bit or labels[v] != label or before[v] & ~(done | step):
                    continue
                if step | bit not in seen:
                    seen.add(step | bit)
                    stack.append(step | bit)
        yield from seen

    def toll(step: int, label: int) -> int:
        total = problem.dispatch[label]
        for crossing in problem.crossings:
            if not step >> crossing.producer & 1 and any(step >> c & 1 for c in crossing.consumers):
                total += crossing.prices[labels[crossing.producer]][label]
        return total

    @cache
    def rest(done: int) -> int:
        if done == (1 << size) - 1:
            return 0
        return min(
            toll(step, label) + rest(done | step)
            for label in sorted(set(labels))
            for step in steps(done, label)
        )

    return nodes + rest(0)


def problem_of(graph: Graph, tables: Mapping[str, Capabilities]) -> Problem:
    """The numbers behind a plan whose primary is the first table."""
    options = choose_options(graph, tables, list(tables), precision="fp32", pins={}, forbid=())
    used = [tables[name] for name in options.backends]
    return make_problem(graph, options, used, MACHINE, prefer_primary=0.0)
