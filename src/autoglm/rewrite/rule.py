"""One rewrite rule = one small class; this applies many of them in one sweep that stays linear.

A rule is onnxscript's `pattern / check / rewrite`. What is added here: rules are looked up by the
operator they end in, so a graph is walked once however many rules there are; new nodes get a
readable name and the sources of what they replace; values the rule creates get unique names.
"""

from __future__ import annotations

import inspect
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import onnx_ir as ir
from onnxscript.rewriter import MatchResult, RewriteRule, RewriteRuleClassBase

from autoglm.rewrite.facts import SOURCE, node_name, sources

RULE = "autoglm.rule"


class Rule(RewriteRuleClassBase):  # type: ignore[misc]
    """A rewrite; subclasses say which operator their pattern ends in."""

    title: ClassVar[str] = ""  # the switch's name
    ends: ClassVar[tuple[str, ...]] = ()  # the operator the pattern ends in; one pattern for each
    variants: ClassVar[tuple[str, ...]] = ("",)  # spellings of the rest; one pattern for each
    opset: ClassVar[int] = 1  # the replacement exists from here on
    commutes: ClassVar[bool] = False

    def __init__(self, end: str, variant: str = "") -> None:
        super().__init__(self.title)
        self.end, self.variant = end, variant


def refuse(reason: str) -> MatchResult:
    """A refusal that onnxscript's tracer can show."""
    return MatchResult().fail(reason)


class Names:
    """The names a model uses, so that new ones differ; holds state while rules run."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        for graph in model.graphs():
            self._taken.update(v.name or "" for v in graph.inputs)
            self._taken.update(graph.initializers)
            for node in graph:
                self._taken.add(node.name or "")
                self._taken.update(v.name or "" for v in node.outputs)

    def new(self, wanted: str) -> str:
        """`wanted`, or `wanted~2` and so on."""
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}~{count}"
        self._taken.add(name)
        return name


class _Trace:
    """Stands in for onnxscript's pattern builder, to see which operators a pattern is made of."""

    def __init__(self, kind: str = "", inputs: tuple[Any, ...] = ()) -> None:
        self._kind, self._inputs = kind, [i for i in inputs if isinstance(i, _Trace) and i._kind]

    def __getattr__(self, kind: str) -> Any:
        return lambda *inputs, **_: _Trace(kind, inputs)

    def near(self) -> frozenset[str]:
        """Operators right before the last one; below a `/`, the ones before those."""
        first = {i._kind for i in self._inputs}
        second = {f"/{j._kind}" for i in self._inputs for j in i._inputs}
        return frozenset(first | second)


@dataclass(frozen=True, slots=True)
class _Compiled:
    near: frozenset[str]
    rules: tuple[RewriteRule, ...]


@cache
def _compiled(kind: type[Rule], end: str) -> tuple[_Compiled, ...]:
    compiled = []
    for variant in kind.variants:
        one = kind(end, variant)
        rule = RewriteRule(one.pattern, one.rewrite, one.check, name=kind.title)
        size = len(inspect.signature(one.pattern).parameters) - 1
        near = one.pattern(_Trace(), *[_Trace() for _ in range(size)]).near()
        compiled.append(_Compiled(near, tuple(rule.commute()) if kind.commutes else (rule,)))
    return tuple(compiled)


def _near(node: ir.Node) -> frozenset[str]:
    found: set[str] = set()
    for value in node.inputs:
        before = value.producer() if value is not None else None
        if before is not None:
            found.add(before.op_type)
            for inner in before.inputs:
                second = inner.producer() if inner is not None else None
                if second is not None:
                    found.add(f"/{second.op_type}")
    return frozenset(found)


def apply_rules(
    model: ir.Model, kinds: Sequence[type[Rule]], names: Names | None = None
) -> Counter[str]:
    """Apply the rules in place until none matches; how often each was applied."""
    opset = model.opset_imports.get("", 1)
    index: dict[str, list[_Compiled]] = {}
    for kind in kinds:
        if kind.opset <= opset:
            for end in kind.ends:
                index.setdefault(end, []).extend(_compiled(kind, end))  # type: ignore[arg-type]
    names = names or Names(model)
    counts: Counter[str] = Counter()
    for graph in list(model.graphs()):
        _sweep(model, graph, index, names, counts)
    return counts


def _sweep(
    model: ir.Model,
    graph: ir.Graph,
    index: dict[str, list[_Compiled]],
    names: Names,
    counts: Counter[str],
) -> None:
    pending = deque(graph)
    budget = 8 * len(pending) + 64  # rules shrink or push one way; this only stops a faulty set
    while pending and budget:
        node = pending.popleft()
        if node.graph is not graph or node.domain or node.op_type not in index:
            continue
        near = _near(node)
        rules = (r for c in index[node.op_type] if c.near <= near for r in c.rules)
        for rule in rules:
            delta = rule.try_rewrite(model, graph, node)
            if delta is None:
                continue
            budget -= 1
            counts[str(rule.name)] += 1
            _install(graph, node, delta, names, str(rule.name))
            pending.extendleft(reversed(delta.new_nodes))
            pending.extend(n for v in delta.new_outputs for n in v.consumers())
            break


def _install(graph: ir.Graph, node: ir.Node, delta: Any, names: Names, rule: str) -> None:
    found = delta.match
    replace(
        graph,
        node,
        found.nodes,
        delta.new_nodes,
        delta.new_initializers,
        found.outputs,
        delta.new_outputs,
        names,
        rule,
    )


def replace(
    graph: ir.Graph,
    root: ir.Node,
    old: Sequence[ir.Node],
    new: Sequence[ir.Node],
    initializers: Iterable[ir.Value],
    old_values: Sequence[ir.Value],
    new_values: Sequence[ir.Value],
    names: Names,
    rule: str,
) -> None:
    """Put new nodes in the place of `root` and the other old ones; nothing else is renamed."""
    stamp(old, new, names, rule)
    base = new[0].name if new else node_name(root)
    for value in initializers:
        value.name = names.new(f"{base}/{value.name or 'constant'}")
        if value.const_value is not None:
            value.const_value.name = value.name
        graph.register_initializer(value)
    kept = {id(v) for v in new_values}
    for node in new:
        for position, value in enumerate(node.outputs):
            if id(value) not in kept and value.name != "":
                value.name = names.new(f"{node.name}:{position}")
    ir.convenience.replace_nodes_and_values(graph, root, old, new, old_values, new_values)


def stamp(old: Iterable[ir.Node], new: Sequence[ir.Node], names: Names, rule: str) -> None:
    """Give new nodes the sources of the old ones, and a name a reader can trace."""
    old = list(reversed(list(old)))  # a match is collected from its end
    union = list(dict.fromkeys(s for node in old for s in sources(node)))
    by_kind = {node.op_type: node_name(node) for node in old}
    used: set[str] = set()
    for node in new:
        same = by_kind.get(node.op_type, "")
        if same and same not in used:
            used.add(same)
            node.name = same
        else:
            node.name = names.new(f"{union[0]}~{node.op_type}")
        node.metadata_props[SOURCE] = ",".join(union)
        rules = dict.fromkeys(r for n in old for r in rules_of(n))
        node.metadata_props[RULE] = ",".join([*rules, *([] if rule in rules else [rule])])


def rules_of(node: ir.Node) -> Iterator[str]:
    """Names of the rules that made this node, in order."""
    yield from filter(None, node.metadata_props.get(RULE, "").split(","))
