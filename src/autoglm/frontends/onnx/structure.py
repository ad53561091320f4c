"""Graph structure of a parsed model: names, scopes, order, sizes; before any engine sees it.

Every check is one pass over the nodes. The file's node order is kept where it already runs; where a
node stands before its producer the nodes are sorted, and only a true cycle is an error.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from autoglm.errors import LimitError, ModelError
from autoglm.frontends import shown
from autoglm.frontends.onnx.attributes import check_attributes, subgraphs
from autoglm.frontends.onnx.tensors import check_tensor
from autoglm.frontends.onnx.types import check_value
from autoglm.frontends.onnx.wire import MAX_NODES

if TYPE_CHECKING:
    import onnx

MAX_DEPTH = 24  # graphs within graphs; protobuf itself stops at about 30


def check_structure(proto: onnx.ModelProto, spans: Mapping[int, tuple[int, int]]) -> None:
    """Check the main graph and every function; `spans` are weights left in the file."""
    opsets = {e.domain: e.version for e in proto.opset_import}
    raw = {index: end - start for index, (start, end) in spans.items()}
    free = _graph(proto.graph, opsets, 1, raw)
    _no_free(free, "the graph")
    for function in proto.functions:
        opsets = {
            "" if e.domain == "ai.onnx" else e.domain: e.version for e in function.opset_import
        }
        _no_free(_function(function, opsets), f"function {shown(function.name)}")


def check_texts(proto: onnx.ModelProto) -> None:
    """Refuse text that is not UTF-8: protobuf gives it as bytes, which nothing later expects."""
    pending: list[Any] = [proto]
    while pending:
        for field, content in pending.pop().ListFields():
            if field.type == field.TYPE_MESSAGE:
                pending.extend([content] if hasattr(content, "ListFields") else content)
            elif field.type == field.TYPE_STRING:
                items = [content] if isinstance(content, (str, bytes)) else content
                if not all(isinstance(text, str) for text in items):
                    raise ModelError(
                        "A {field} in the model is not UTF-8 text.",
                        hint="The file is damaged: download or export it again.",
                        field=field.name,
                    )


def _no_free(free: Mapping[str, str], where: str) -> None:
    for name, reader in free.items():
        raise ModelError(
            "{reader} reads {name}, which nothing in {where} produces.",
            hint="The model is incomplete: export it again.",
            reader=reader,
            name=shown(name),
            where=where,
        )


def _function(function: onnx.FunctionProto, opsets: Mapping[str, int]) -> dict[str, str]:
    made: dict[str, str] = {}
    for name in function.input:
        _define(made, name, "an input")
    return _nodes(function, made, opsets, 1, function.output)


def _graph(
    graph: onnx.GraphProto, opsets: Mapping[str, int], depth: int, raw: Mapping[int, int]
) -> dict[str, str]:
    # Returns the names the graph reads from outside, each with the node that reads it.
    if depth > MAX_DEPTH:
        raise LimitError(
            "Graphs are nested more than {limit} deep.",
            hint="No exporter writes such a model; it may be made to exhaust the reader.",
            limit=MAX_DEPTH,
        )
    made: dict[str, str] = {}
    for value in graph.input:
        _define(made, value.name, "an input")
        check_value(value)
    _initializers(graph, made, raw)
    for value in (*graph.output, *graph.value_info):
        check_value(value)
    outputs = [value.name for value in graph.output]
    seen: set[str] = set()
    for name in outputs:
        if name in seen:
            raise ModelError("The graph gives out {name} twice.", name=shown(name))
        seen.add(name)
    return _nodes(graph, made, opsets, depth, outputs)


def _initializers(graph: onnx.GraphProto, made: dict[str, str], raw: Mapping[int, int]) -> None:
    stored: set[str] = set()
    tensors = (*graph.initializer, *(s.values for s in graph.sparse_initializer))
    for index, tensor in enumerate(tensors):
        if not tensor.name or tensor.name in stored:
            raise ModelError(
                "Two weights have the name {name}." if tensor.name else "A weight has no name.",
                hint="Names of weights are unique: export the model again.",
                name=shown(tensor.name),
            )
        stored.add(tensor.name)
        check_tensor(tensor, raw.get(index))
        made.setdefault(tensor.name, "a weight")


def _nodes(
    graph: onnx.GraphProto | onnx.FunctionProto,
    made: dict[str, str],
    opsets: Mapping[str, int],
    depth: int,
    outputs: Iterable[str],
) -> dict[str, str]:
    if len(graph.node) > MAX_NODES:
        raise LimitError("The graph has more than {limit} nodes.", limit=MAX_NODES)
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.output:
            if name:
                _define(made, name, describe(node, index))
                producer[name] = index
    reads = [_reads(node, index, opsets, depth) for index, node in enumerate(graph.node)]
    free = {
        name: describe(graph.node[index], index)
        for index, names in enumerate(reads)
        for name in names
        if name not in made
    }
    missing = next((name for name in outputs if name not in made), None)
    if missing is not None:
        raise ModelError(
            "Graph output {name} is produced by no node.",
            hint="The model is incomplete: export it again.",
            name=shown(missing),
        )
    _sort(graph, [{producer[n] for n in names if n in producer} for names in reads])
    return free


def _define(made: dict[str, str], name: str, by: str) -> None:
    if not name:
        raise ModelError("An input has no name.", hint="Name every graph input.")
    if name in made:
        raise ModelError(
            "{name} is produced twice: by {first} and by {second}.",
            hint="Every value has one producer (ONNX graphs are in SSA form): export it again.",
            name=shown(name),
            first=made[name],
            second=by,
        )
    made[name] = by


def _reads(
    node: onnx.NodeProto, index: int, opsets: Mapping[str, int], depth: int
) -> dict[str, None]:
    # The names a node reads, with those its bodies read from here; ordered, without repeats.
    where = describe(node, index)
    check_attributes(node, where, opsets)
    names = dict.fromkeys(name for name in node.input if name)
    for body in subgraphs(node):
        names |= dict.fromkeys(_graph(body, opsets, depth + 1, {}))
    return names


def describe(node: onnx.NodeProto, index: int) -> str:
    """How a node is called in a message: its operator, and its name or place."""
    place = shown(node.name) if node.name else f"number {index}"
    return f"{node.op_type[:60]} node {place}"


def _sort(graph: onnx.GraphProto | onnx.FunctionProto, needs: list[set[int]]) -> None:
    if all(max(need, default=-1) < index for index, need in enumerate(needs)):
        return
    readers: dict[int, list[int]] = {}
    for index, need in enumerate(needs):
        for earlier in need:
            readers.setdefault(earlier, []).append(index)
    left = [len(need) for need in needs]
    ready = [index for index, count in enumerate(left) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, ()):
            left[reader] -= 1
            if left[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(needs):
        _refuse_cycle(graph, needs, set(order))
    nodes = [graph.node[index] for index in order]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _refuse_cycle(
    graph: onnx.GraphProto | onnx.FunctionProto, needs: list[set[int]], done: set[int]
) -> None:
    at = next(i for i in range(len(needs)) if i not in done)
    path: list[int] = []
    while at not in path:
        path.append(at)
        at = min(i for i in needs[at] if i not in done)
    cycle = path[path.index(at) :]
    names = [describe(graph.node[i], i) for i in cycle[:5]]
    raise ModelError(
        "The graph has a cycle of {count} nodes: {nodes}.",
        hint="A node cannot depend on its own result; loops are written with Loop or Scan.",
        count=len(cycle),
        nodes=", ".join(names) + (", …" if len(cycle) > 5 else ""),
    )
