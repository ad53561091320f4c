"""Branches, loops, sequences and optionals, walked in Python."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autoglm.backends.torch.op import Kind, Node, Op, Table


def if_(node: Node, condition: Tensor, *captured: Any) -> Any:
    """Run one branch."""
    branch = node.bodies["then_branch" if bool(condition) else "else_branch"]
    return tuple(branch.run([], captured))


def loop(node: Node, *values: Any) -> Any:
    """Until the count or the condition ends it; what a step adds is stacked."""
    given, captured = values[: node.arity], values[node.arity :]
    limit = None if given[0] is None else int(given[0])
    condition: Any = True if len(given) < 2 or given[1] is None else given[1]
    carried = list(given[2:])
    scans: list[list[Any]] = [[] for _ in range(len(node.call.outputs) - len(carried))]
    count = 0
    while bool(condition) and (limit is None or count < limit):
        step = torch.tensor(count, dtype=torch.int64, device=node.device)
        flag = torch.as_tensor(condition, device=node.device)
        condition, *rest = node.bodies["body"].run([step, flag, *carried], captured)
        carried, added = rest[: len(carried)], rest[len(carried) :]
        for scan, value in zip(scans, added, strict=False):
            scan.append(value)
        count += 1
    return (*carried, *(_stacked(node, scan, i) for i, scan in enumerate(scans, len(carried))))


def _stacked(node: Node, values: list[Any], index: int) -> Tensor:
    if values:
        return torch.stack(values)
    name = node.call.outputs[index]
    return torch.zeros(0, dtype=node.out(index) if name else torch.float32, device=node.device)


def scan(node: Node, *values: Any) -> Any:
    """States carried over the steps of scanned inputs."""
    given, captured = values[: node.arity], values[node.arity :]
    count = node["num_scan_inputs"]
    states, inputs = list(given[: len(given) - count]), list(given[len(given) - count :])
    axes = node["scan_input_axes"] or [0] * count
    back = node["scan_input_directions"] or [0] * count
    steps = [(x.flip(a) if b else x).unbind(a) for x, a, b in zip(inputs, axes, back, strict=True)]
    outs: list[list[Tensor]] = [[] for _ in range(len(node.call.outputs) - len(states))]
    for row in zip(*steps, strict=True):
        result = node.bodies["body"].run([*states, *row], captured)
        states, added = result[: len(states)], result[len(states) :]
        for out, value in zip(outs, added, strict=True):
            out.append(value)
    axes = node["scan_output_axes"] or [0] * len(outs)
    back = node["scan_output_directions"] or [0] * len(outs)
    stacked = [
        torch.stack(o[::-1] if b else o, a) if o else _stacked(node, [], i)
        for i, (o, a, b) in enumerate(zip(outs, axes, back, strict=True), len(states))
    ]
    return (*states, *stacked)


def scan_8(node: Node, lengths: Tensor | None, *values: Any) -> Any:
    """Opset 8: the first axis is a batch, the second is scanned; lengths shorten each entry."""
    given, captured = values[: node.arity - 1], values[node.arity - 1 :]
    count = node["num_scan_inputs"]
    back = node["directions"] or [0] * count
    split = len(given) - count
    rows = []
    for batch in range(given[0].shape[0]):
        states = [s[batch] for s in given[:split]]
        inputs = [x[batch] for x in given[split:]]
        limit = inputs[0].shape[0] if lengths is None else int(lengths[batch])
        steps = [(x[:limit].flip(0) if b else x[:limit]) for x, b in zip(inputs, back, strict=True)]
        rows.append(_scan_row(node, states, steps, inputs[0].shape[0], captured))
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def _scan_row(
    node: Node, states: list[Any], steps: list[Tensor], size: int, captured: Any
) -> list[Tensor]:
    outs: list[list[Tensor]] = [[] for _ in range(len(node.call.outputs) - len(states))]
    for row in zip(*steps, strict=True):
        result = node.bodies["body"].run([*states, *row], captured)
        states = result[: len(states)]
        for out, value in zip(outs, result[len(states) :], strict=True):
            out.append(value)
    padded = []
    for out in outs:
        stack = torch.stack(out)
        padded.append(torch.cat([stack, stack.new_zeros(size - len(out), *stack.shape[1:])]))
    return [*states, *padded]


def sequence_empty(node: Node) -> list[Any]:
    """Nothing yet."""
    return []


def sequence_construct(node: Node, *xs: Any) -> list[Any]:
    """A list of the inputs."""
    return list(xs)


def sequence_insert(node: Node, items: list[Any], x: Any, place: Any = None) -> list[Any]:
    """Before `place`, or at the end."""
    at = len(items) if place is None else int(place)
    return [*items[:at], x, *items[at:]]


def sequence_erase(node: Node, items: list[Any], place: Any = None) -> list[Any]:
    """Without the item at `place`, or the last."""
    at = (-1 if place is None else int(place)) % len(items)
    return [*items[:at], *items[at + 1 :]]


def sequence_at(node: Node, items: list[Any], place: Any) -> Any:
    """One item."""
    return items[int(place)]


def sequence_length(node: Node, items: list[Any]) -> Tensor:
    """How many items."""
    return torch.tensor(len(items), dtype=torch.int64, device=node.device)


def sequence_map(node: Node, *values: Any) -> Any:
    """The body over each item; plain tensors are given to every step."""
    given, captured = values[: node.arity], values[node.arity :]
    columns: list[list[Any]] = [[] for _ in node.call.outputs]
    for i in range(len(given[0])):
        row = [x[i] if isinstance(x, list) else x for x in given]
        for column, y in zip(columns, node.bodies["body"].run(row, captured), strict=True):
            column.append(y)
    return tuple(columns)


def split_to_sequence(node: Node, x: Tensor, sizes: Any = None) -> list[Tensor]:
    """Pieces of one size or of given sizes; singles lose their axis unless keepdims."""
    axis = node["axis"]
    if sizes is None:
        pieces = list(torch.split(x, 1, axis))
        return pieces if node["keepdims"] else [p.squeeze(axis) for p in pieces]
    return list(torch.split(x, sizes, axis))


def concat_from_sequence(node: Node, items: list[Tensor]) -> Tensor:
    """Join, on a new axis on request."""
    return torch.stack(items, node["axis"]) if node["new_axis"] else torch.cat(items, node["axis"])


def optional(node: Node, x: Any = None) -> Any:
    """The value, or nothing."""
    return x


def has_element(node: Node, x: Any = None) -> Tensor:
    """Whether there is a value."""
    return torch.tensor(x is not None, device=node.device)


def get_element(node: Node, x: Any) -> Any:
    """The value that is there."""
    if x is None:
        raise ValueError("OptionalGetElement of an optional that is empty")
    return x


def _native(run: Any, host: tuple[int, ...] = ()) -> Op:
    return Op(run, host=host, kind=Kind.NATIVE)


TABLE: Table = {
    "If": _native(if_),
    "Loop": _native(loop),
    "Scan": {8: _native(scan_8), 9: _native(scan)},
    "SequenceEmpty": _native(sequence_empty),
    "SequenceConstruct": _native(sequence_construct),
    "SequenceInsert": _native(sequence_insert),
    "SequenceErase": _native(sequence_erase),
    "SequenceAt": _native(sequence_at),
    "SequenceLength": _native(sequence_length),
    "SequenceMap": _native(sequence_map),
    "SplitToSequence": _native(split_to_sequence, (1,)),
    "ConcatFromSequence": _native(concat_from_sequence),
    "Optional": _native(optional),
    "OptionalHasElement": _native(has_element),
    "OptionalGetElement": _native(get_element),
}
