"""What a capability rule may look at: a node's dtypes, and its features as flat, comparable values.

The same two functions describe a measured case and a node of a user's model, so a rule derived
from the one holds
for the other. Only names and numbers: no IR, no arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import prod
from typing import Any, TypeAlias

from autoglm.spec import NodeFacts, ValueFacts

Feature: TypeAlias = str | int | float | bool
Features: TypeAlias = Mapping[str, Feature]

UNKNOWN = "?"
_SMALL_PLANE, _LARGE_PLANE = 196, 225
_MANY = (32, 256)  # numbers that make one of the results: more sum up more error
# Inputs that an older opset had as attributes; not axes, which every compiler counts from 0 first.
_PARAMETERS = frozenset({"steps", "pads", "shape", "split", "repeats", "K", "k", "depth", "sizes"})
# Attributes whose strings are free text: a value nobody measured says nothing about support.
FREE_TEXT = frozenset(
    {"equation", "pattern", "delimiter", "default_string", "locale", "body", "mode_name"}
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read one operator version: which positions type it, the names of its inputs,
    attribute defaults.
    """

    typed: tuple[str, ...]  # "i0", "i1", "o0": the positions whose dtypes make the signature
    inputs: tuple[str, ...]  # formal names
    required: int  # how many leading inputs are not optional
    variadic: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def name(self, position: str) -> str:
        """The formal name of an input position; `output` for outputs."""
        return self.inputs[int(position[1:])] if position[0] == "i" else "output"


def signature(node: NodeFacts, layout: Layout) -> tuple[str, ...]:
    """The dtypes that type this node, in the order of `layout.typed`; `?` where one is not
    known.
    """
    return tuple(_dtype(_at(node, position)) for position in layout.typed)


def _at(node: NodeFacts, position: str) -> ValueFacts | None:
    side: Sequence[ValueFacts | None] = node.inputs if position[0] == "i" else node.outputs
    index = int(position[1:])
    return side[index] if index < len(side) else None


def _dtype(value: ValueFacts | None) -> str:
    if value is None:
        return "-"
    name = value.dtype or UNKNOWN
    return name if value.kind == "tensor" else f"{value.kind}({name})"


def features(node: NodeFacts, layout: Layout) -> dict[str, Feature]:
    """Everything else a limit can be about: attributes, optional inputs, ranks, constants, empty
    tensors.
    """
    found: dict[str, Feature] = {}
    for name, value in {**layout.defaults, **node.attributes}.items():
        found.update(_attribute(name, value))
    if layout.variadic:
        found["inputs"] = min(len(node.inputs), 3)
        found["constants"] = any(v is not None and v.constant for v in node.inputs)
    else:
        for index, name in enumerate(layout.inputs):
            found.update(_input(node, index, name, optional=index >= layout.required))
    if node.inputs and node.inputs[0] is not None:
        found["rank"] = UNKNOWN if node.inputs[0].rank is None else node.inputs[0].rank
    found["outputs"] = len(node.outputs)
    found["empty"] = _empty(node)
    found["dynamic"] = _dynamic(node)
    found["result"] = _result(node)
    found["shapes"] = _broadcast(node)
    if node.op.startswith("Reduce"):
        found["reduced"] = _reduced(node)
    found.update(_terms(node))
    if node.op == "LRN":
        found["plane"] = _plane(node)
    return found


def _attribute(name: str, value: Any) -> dict[str, Feature]:
    if isinstance(value, (tuple, list)):
        return {f"attr.{name}": _pattern(value), f"len.{name}": len(value)}
    if isinstance(value, str) and name in FREE_TEXT:
        return {}
    if isinstance(value, (str, bool, int, float)):
        return {f"attr.{name}": f"{value:g}" if isinstance(value, float) else value}
    return {}


def _pattern(values: Sequence[Any]) -> str:
    """The shape of a list, not its numbers: kernel sizes and pads generalise, their kind does
    not.
    """
    if any(isinstance(v, str) for v in values):
        return ",".join(dict.fromkeys(str(v) for v in values))
    if any(v < 0 for v in values):
        return "with negative"
    kinds = set(values)
    if not kinds or kinds == {0}:
        return "all 0"
    if kinds == {1}:
        return "all 1"
    return "all equal" if len(kinds) == 1 else "mixed"


def _input(node: NodeFacts, index: int, name: str, *, optional: bool) -> dict[str, Feature]:
    value = node.inputs[index] if index < len(node.inputs) else None
    found: dict[str, Feature] = {}
    if optional:
        found[f"given.{name}"] = value is not None
    if value is None:
        return found
    if index > 0:
        found[f"constant.{name}"] = value.constant
        found[f"rank.{name}"] = UNKNOWN if value.rank is None else value.rank
    if index > 0 and value.constant and name in _PARAMETERS:
        found[f"values.{name}"] = UNKNOWN if value.ints is None else _pattern(value.ints)
    if optional or value.kind != "tensor":
        found[f"dtype.{name}"] = _dtype(value)
    return found


def _shapes(node: NodeFacts) -> list[tuple[Any, ...] | None]:
    return [v.shape for v in node.inputs if v is not None and v.kind == "tensor"]


def _empty(node: NodeFacts) -> bool:
    return any(0 in shape for shape in _shapes(node) if shape is not None)


def _dynamic(node: NodeFacts) -> bool:
    return any(s is None or not all(isinstance(d, int) for d in s) for s in _shapes(node))


def _broadcast(node: NodeFacts) -> str:
    shapes = _shapes(node)
    if any(shape is None for shape in shapes):
        return UNKNOWN
    if len(set(shapes)) <= 1:
        return "equal"
    return "same rank" if len({len(s) for s in shapes if s is not None}) == 1 else "ranks differ"


def _result(node: NodeFacts) -> str:
    """The first output beside the first input: what resizing, padding and slicing are about."""
    before = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
    after = node.outputs[0].shape if node.outputs else None
    if before is None or after is None:
        return UNKNOWN
    if len(before) != len(after):
        return "of another rank"
    pairs = list(zip(before, after, strict=True))
    if any(not isinstance(n, int) for pair in pairs for n in pair if pair[0] != pair[1]):
        return UNKNOWN
    smaller = any(a < b for b, a in pairs if isinstance(a, int) and isinstance(b, int))
    larger = any(a > b for b, a in pairs if isinstance(a, int) and isinstance(b, int))
    return {(0, 0): "equal", (1, 0): "smaller", (0, 1): "larger", (1, 1): "mixed"}[smaller, larger]


def _reduced(node: NodeFacts) -> str:
    """Which axes a reduction takes, as far as the shapes tell: `all`, `none`, `together`, `apart`.

    The axes themselves may be an input; compilers merge neighbours and stumble over the others.
    """
    before = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
    after = node.outputs[0].shape if node.outputs else None
    if before is None or after is None or _dynamic(node):
        return UNKNOWN
    axes = range(len(before))
    if len(before) == len(after):
        kinds = {_neighbours([a for a in axes if before[a] != after[a]], len(before))}
    else:
        sets = combinations(axes, len(before) - len(after))
        fits = [s for s in sets if tuple(before[a] for a in axes if a not in s) == after]
        kinds = {_neighbours(s, len(before)) for s in fits}
    return kinds.pop() if len(kinds) == 1 else UNKNOWN


def _neighbours(axes: Sequence[int], rank: int) -> str:
    if len(axes) in (0, rank):
        return "all" if axes else "none"
    return "together" if axes[-1] - axes[0] == len(axes) - 1 else "apart"


def _terms(node: NodeFacts) -> dict[str, Feature]:
    """Whether more numbers than each of `_MANY` make one result, where that many are summed."""
    count = _summed(node)
    if count is None:
        return {}
    return {f"terms.{n}": UNKNOWN if count < 0 else count > n for n in _MANY}


def _summed(node: NodeFacts) -> int | None:
    """How many; -1 where the shapes do not tell, None for operators that sum nothing."""
    shapes = [v.shape if v is not None else None for v in node.inputs]
    first, second = [*shapes, None, None][:2]
    if node.op.startswith("Reduce") or node.op == "GlobalAveragePool":
        sizes = _size(first), _size(node.outputs[0].shape if node.outputs else None)
        return sizes[0] // max(sizes[1], 1) if min(sizes) >= 0 else -1
    if node.op == "MatMul":
        return _size(first[-1:] if first else None)
    if node.op == "Gemm":
        depth = 0 if node.attributes.get("transA", 0) else 1
        return _size(first[depth : depth + 1] if first else None)
    if node.op == "Conv":
        return _size(second[1:] if second else None)
    if node.op == "ConvTranspose":
        return _size((second[0], *second[2:]) if second else None)
    return None


def _size(shape: Sequence[Any] | None) -> int:
    known = shape is not None and all(isinstance(n, int) for n in shape)
    return prod(shape) if known and shape is not None else -1


def _plane(node: NodeFacts) -> str:
    """The elements of one channel. TPU-MLIR 1.30.2 takes none up to 196 and all from 225; between
    them nothing was measured.
    """
    shape = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
    known = [n for n in shape[2:] if isinstance(n, int)] if shape is not None else []
    if shape is None or len(known) != len(shape[2:]):
        return UNKNOWN
    size = prod(known)
    return "small" if size <= _SMALL_PLANE else "large" if size >= _LARGE_PLANE else UNKNOWN
