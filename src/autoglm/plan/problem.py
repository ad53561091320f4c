"""The placement problem in numbers: indices for nodes and backends, integer picoseconds for prices.

Integers make every comparison exact and every plan the same on every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoglm.plan.cost import (
    Machine,
    Side,
    boundary_kinds,
    boundary_seconds,
    machines_of,
    node_seconds,
)
from autoglm.plan.graph import Graph, Node
from autoglm.plan.options import Options
from autoglm.spec import Capabilities

PICO = 1e12
UNPLACED = -1


@dataclass(frozen=True, slots=True)
class Crossing:
    """One tensor between nodes: its price from any backend to any other (`prices[from][to]`)."""

    name: str
    producer: int
    consumers: tuple[int, ...]
    prices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Nodes in topological order with their allowed labels; a label is an index into `backends`."""

    backends: tuple[str, ...]
    options: tuple[tuple[int, ...], ...]
    times: tuple[tuple[int, ...], ...]  # [label][node], picoseconds
    dispatch: tuple[int, ...]  # [label], picoseconds of one session call
    crossings: tuple[Crossing, ...]
    successors: tuple[tuple[int, ...], ...]
    predecessors: tuple[tuple[int, ...], ...]
    touching: tuple[tuple[int, ...], ...]  # [node]: the crossings that it gives or reads
    penalty: tuple[
        int, ...
    ]  # [node]: added to the objective where it leaves a primary that takes it

    @property
    def size(self) -> int:
        """Number of nodes."""
        return len(self.options)

    def node_cost(self, node: int, label: int) -> int:
        """What the objective charges for a node on a label."""
        return self.times[label][node] + (self.penalty[node] if label else 0)


def make_problem(
    graph: Graph,
    options: Options,
    tables: Sequence[Capabilities],
    machine: Machine,
    *,
    prefer_primary: float,
) -> Problem:
    """Price every node on every backend, and every tensor between every two.

    `machine` is the host; a backend that drives a chip is priced by the chip.
    """
    machines = machines_of(tables, options.precisions, machine)
    times = tuple(
        _times(graph, m, precision, t.speed)
        for m, precision, t in zip(machines, options.precisions, tables, strict=True)
    )
    index = {n.name: i for i, n in enumerate(graph.nodes)}
    ends = list(zip(sides(options, tables), machines, strict=True))
    crossings = _crossings(graph, index, ends, machine)
    successors: list[dict[int, None]] = [{} for _ in graph.nodes]
    predecessors: list[dict[int, None]] = [{} for _ in graph.nodes]
    touching: list[list[int]] = [[] for _ in graph.nodes]
    for number, crossing in enumerate(crossings):
        touching[crossing.producer].append(number)
        for consumer in crossing.consumers:
            touching[consumer].append(number)
            successors[crossing.producer][consumer] = None
            predecessors[consumer][crossing.producer] = None
    return Problem(
        options.backends,
        options.labels,
        times,
        tuple(round(PICO * m.dispatch(b)) for m, b in zip(machines, options.backends, strict=True)),
        crossings,
        tuple(map(tuple, successors)),
        tuple(map(tuple, predecessors)),
        tuple(map(tuple, touching)),
        tuple(
            round(prefer_primary * times[0][i]) if 0 in allowed else 0
            for i, allowed in enumerate(options.labels)
        ),
    )


def _times(graph: Graph, machine: Machine, precision: str, speed: float) -> tuple[int, ...]:
    """Of each node, with its share of bringing the model's inputs in and its outputs out."""
    moved = _edge_bytes(graph) if machine.link_gbps else {}

    def seconds(node: Node) -> float:
        own = node_seconds(node.work, machine, precision=precision, speed=speed, op=node.op)
        return own + machine.link_seconds(moved.get(node.name, 0))

    return tuple(max(1, round(PICO * seconds(n))) for n in graph.nodes)


def _edge_bytes(graph: Graph) -> dict[str, int]:
    """Node -> bytes over the link: an input counts for its first reader, an output for its node."""
    outputs = set(graph.outputs)
    moved: dict[str, int] = {}
    for tensor in graph.tensors:
        ends = [tensor.producer] if tensor.producer and tensor.name in outputs else []
        ends += tensor.consumers[:1] if not tensor.producer else ()
        for node in ends:
            moved[node] = moved.get(node, 0) + tensor.bytes
    return moved


def sides(options: Options, tables: Sequence[Capabilities]) -> list[Side]:
    """What each backend brings to a boundary: its precision and the layout it likes best."""
    return [
        Side(b, p, t.layouts[0] if t.layouts else "NCHW")
        for b, p, t in zip(options.backends, options.precisions, tables, strict=True)
    ]


def _crossings(
    graph: Graph, index: dict[str, int], ends: Sequence[tuple[Side, Machine]], host: Machine
) -> tuple[Crossing, ...]:
    seen: dict[tuple[str, int, int], tuple[tuple[int, ...], ...]] = {}
    found = []
    for tensor in graph.tensors:
        if not tensor.producer or not tensor.consumers:
            continue
        key = (tensor.dtype, tensor.rank, tensor.bytes)
        if key not in seen:
            seen[key] = tuple(
                tuple(_price(a, b, tensor.dtype, tensor.rank, tensor.bytes, host) for b in ends)
                for a in ends
            )
        consumers = tuple(index[c] for c in tensor.consumers)
        found.append(Crossing(tensor.name, index[tensor.producer], consumers, seen[key]))
    return tuple(found)


def _price(
    a: tuple[Side, Machine],
    b: tuple[Side, Machine],
    dtype: str,
    rank: int,
    size: int,
    host: Machine,
) -> int:
    kinds = boundary_kinds(a[0], b[0], dtype, rank)
    return round(PICO * boundary_seconds(kinds, size, host, (a[1], b[1])))
