"""The planner's view of a model: facts, work and tensors per node; plain data, no IR."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoglm.catalog.work import Shape, Work, value_bytes, work_of
from autoglm.errors import ModelError
from autoglm.messages import tr
from autoglm.spec import NodeFacts, ValueFacts

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: what tables judge, what it costs, which tensors and weights it touches."""

    facts: NodeFacts
    inputs: tuple[str, ...]  # tensors read, also by its bodies; weights are apart
    outputs: tuple[str, ...]
    work: Work
    weights: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The node's stable name."""
        return self.facts.name

    @property
    def op(self) -> str:
        """Its operator."""
        return self.facts.op

    @property
    def flops(self) -> float:
        """Floating-point operations of one run."""
        return self.work.flops


@dataclass(frozen=True, slots=True)
class Tensor:
    """One value between nodes: an edge per consumer. `producer` is "" for the graph's inputs."""

    name: str
    producer: str
    consumers: tuple[str, ...]
    bytes: int
    dtype: str
    rank: int  # -1 = unknown

    @property
    def layout(self) -> str:
        """The layout it has in the model; engines may prefer another for rank 4 and 5."""
        return {4: "NCHW", 5: "NCDHW"}.get(self.rank, "")


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in topological order, tensors between them, weights in bytes, and what was assumed."""

    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def weight_bytes(self) -> int:
        """All weights together."""
        return sum(self.weights.values())


@dataclass(frozen=True, slots=True)
class Wiring:
    """Which tensors and weights one node reads, and which tensors it gives, by name."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()


class _Dims:
    """Concrete shapes: bound dims, else the default; remembers what it had to assume."""

    def __init__(self, bound: Mapping[str, int], default: int) -> None:
        self.bound, self.default = bound, default
        self.assumed: dict[str, int] = {}
        self.unnamed = self.rankless = 0

    def __call__(self, value: ValueFacts) -> Shape:
        if value.shape is None:
            self.rankless += 1
            return ()
        return tuple(d if isinstance(d, int) else self._bind(d) for d in value.shape)

    def _bind(self, dim: str | None) -> int:
        if dim is None:
            self.unnamed += 1
            return self.default
        if dim in self.bound:
            return self.bound[dim]
        self.assumed[dim] = self.default
        return self.default

    def notes(self) -> Iterable[str]:
        for name, size in self.assumed.items():
            yield tr("Costs take dimension {name!r} as {size}.", name=name, size=size)
        if self.unnamed:
            yield tr("Costs take dimensions without a name as {size}.", size=self.default)
        if self.rankless:
            yield tr("Costs take values of unknown rank as scalars.")


def make_graph(
    facts: Sequence[NodeFacts],
    wiring: Sequence[Wiring],
    *,
    inputs: Mapping[str, ValueFacts] | Sequence[str] = (),
    outputs: Sequence[str] = (),
    weights: Mapping[str, int] | None = None,
    dims: Mapping[str, int] | None = None,
    default_dim: int = 1,
    loop_trips: int = 1,
) -> Graph:
    """A graph from facts and wiring in topological order; ModelError for a name used twice."""
    concrete = _Dims(dims or {}, default_dim)
    nodes = [
        Node(
            f,
            w.inputs,
            w.outputs,
            work_of(f, concrete, trips=loop_trips if f.op != "If" else 1),
            w.weights,
        )
        for f, w in zip(facts, wiring, strict=True)
    ]
    _require_order(nodes)
    notes = list(concrete.notes())
    if any(f.body and f.op != "If" for f in facts):
        notes.append(
            tr("Costs take every Loop and Scan as {count} iteration(s).", count=loop_trips)
        )
    described = dict(inputs) if isinstance(inputs, Mapping) else {}
    tensors = _tensors(nodes, tuple(inputs), described, concrete)
    return Graph(tuple(nodes), tensors, tuple(inputs), tuple(outputs), weights or {}, tuple(notes))


def _tensors(
    nodes: Sequence[Node], inputs: Sequence[str], described: Mapping[str, ValueFacts], dims: _Dims
) -> tuple[Tensor, ...]:
    consumers: dict[str, list[str]] = {}
    facts: dict[str, ValueFacts] = dict(described)
    producers = dict.fromkeys(inputs, "")
    for node in nodes:
        for name in dict.fromkeys(node.inputs):
            consumers.setdefault(name, []).append(node.name)
        for name, value in zip(node.outputs, node.facts.outputs, strict=False):
            producers[name], facts[name] = node.name, value
    return tuple(
        _tensor(name, producer, tuple(consumers.get(name, ())), facts.get(name), dims)
        for name, producer in producers.items()
        if name
    )


def _tensor(
    name: str, producer: str, consumers: tuple[str, ...], facts: ValueFacts | None, dims: _Dims
) -> Tensor:
    if facts is None:
        return Tensor(name, producer, consumers, 0, "", -1)
    rank = -1 if facts.rank is None else facts.rank
    return Tensor(
        name, producer, consumers, value_bytes(facts.dtype, dims(facts)), facts.dtype, rank
    )


def _require_order(nodes: Sequence[Node]) -> None:
    seen: set[str] = set()
    made: set[str] = set()
    given = {name for node in nodes for name in node.outputs}
    for node in nodes:
        if node.name in seen:
            raise ModelError("Two nodes are named {name!r}; names must be unique.", name=node.name)
        late = next((t for t in node.inputs if t in given and t not in made), None)
        if late is not None:
            raise ModelError(
                "Node {name!r} reads {late!r} before it is made.", name=node.name, late=late
            )
        seen.add(node.name)
        for output in filter(None, node.outputs):
            if output in made:
                raise ModelError("Two nodes give the tensor {name!r}.", name=output)
            made.add(output)


def graph_of(
    model: ir.Model, *, default_dim: int = 1, dims: Mapping[str, int] | None = None
) -> Graph:
    """The planner's view of `model`; open dimensions are `dims[name]`, else `default_dim`."""
    from autoglm.rewrite.facts import node_facts, node_name, value_facts

    graph = model.graph
    facts = node_facts(model)
    by_name = {node_name(n): n for n in graph}
    weights = {name: _weight(value) for name, value in graph.initializers.items()}
    return make_graph(
        facts,
        [_wiring(by_name[f.name], graph) for f in facts],
        inputs={v.name or "": value_facts(v) for v in graph.inputs if v.name not in weights},
        outputs=[v.name or "" for v in graph.outputs],
        weights=weights,
        dims=dims,
        default_dim=default_dim,
    )


def _weight(value: ir.Value) -> int:
    return 0 if value.const_value is None else int(value.const_value.nbytes)


def _wiring(node: ir.Node, graph: ir.Graph) -> Wiring:
    read = list(dict.fromkeys(v for v in _reads(node) if v.name))
    weights = graph.initializers
    return Wiring(
        tuple(v.name or "" for v in read if v.name not in weights),
        tuple(v.name or "" for v in node.outputs),
        tuple(v.name or "" for v in read if v.name in weights),
    )


def _reads(node: ir.Node) -> Iterable[ir.Value]:
    """What the node reads of the main graph: its inputs, and what its bodies capture."""
    from autoglm.rewrite.facts import deep_nodes, subgraphs

    yield from (v for v in node.inputs if v is not None)
    inner = list(deep_nodes(node))
    graphs = [g for n in (node, *inner) for g in subgraphs(n)]
    own = {v for n in inner for v in n.outputs}
    for body in graphs:
        own.update(body.inputs, body.initializers.values())
    used = [v for n in inner for v in n.inputs] + [v for g in graphs for v in g.outputs]
    yield from (v for v in used if v is not None and v not in own)
