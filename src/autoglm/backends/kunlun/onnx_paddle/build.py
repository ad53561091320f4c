"""A list of calls -> a Paddle program and its weights, in Paddle's own files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from .op import DTYPES, Node, Op, Refused, Value, constant, is_narrow, name_of, widened
from .table import find

_INLINE = 64  # elements; larger constants become parameters
_PREFIX = "model"


class NodeError(Exception):
    """A node that could not be written, with the node."""

    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(reason)
        self.node = node


def build(folder: Path, out: Path) -> list[str]:
    """Write `model.json` and `model.pdiparams` below `out` from `calls.json` and `weights.bin`;
    the program's input per input of the model, "" where nothing reads it.
    """
    spec = json.loads((folder / "calls.json").read_text("utf-8"))
    path = folder / "weights.bin"
    raw = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    arrays = {name: _array(row, raw) for name, row in spec["constants"].items()}
    paddle.enable_static()
    main, startup = paddle.static.Program(), paddle.static.Program()
    scope = paddle.static.Scope()
    with paddle.static.scope_guard(scope), paddle.static.program_guard(main, startup):
        writer = _Writer(arrays)
        feeds = [writer.feed(i, row) for i, row in enumerate(spec["inputs"])]
        for row in spec["calls"]:
            writer.add(row)
        fetches = [writer.give(row) for row in spec["outputs"]]
        read = _read(fetches)
        executor = paddle.static.Executor(paddle.CPUPlace())
        executor.run(startup)
        for name, array in writer.parameters.items():
            scope.find_var(name).get_tensor().set(array, paddle.CPUPlace())
        paddle.static.save_inference_model(
            str(out / _PREFIX), [f for f in feeds if f.name in read], fetches, executor,
            program=main,
        )  # fmt: skip
    return [f.name if f.name in read else "" for f in feeds]


def _read(fetches: Sequence[Value]) -> set[str]:
    """Names of the inputs that the outputs come from; Paddle refuses to save others."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting = [value.get_defining_op() for value in fetches]
    while waiting:
        op = waiting.pop()
        if op.id() in seen:
            continue
        seen.add(op.id())
        if op.name() == "pd_op.data":
            found.add(op.attrs()["name"])
        waiting += [v.get_defining_op() for v in op.operands_source() if v.initialized()]
    return found


def _array(row: Mapping[str, Any], raw: Any) -> np.ndarray[Any, Any]:
    dtype, shape = row["dtype"], row["shape"]
    if dtype not in DTYPES.values():
        return np.empty(shape, np.void)  # refused by the node that reads it
    held = np.uint16 if dtype == "bfloat16" else np.dtype(dtype)
    data: np.ndarray[Any, Any] = raw[row["offset"] : row["offset"] + row["bytes"]]
    return data.view(held).reshape(shape)


class _Writer:
    """Writes one node after the other into the program that is being built."""

    def __init__(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self.arrays = arrays
        self.values: dict[str, Value] = {}
        self.parameters: dict[str, np.ndarray[Any, Any]] = {}
        self.given: set[int] = set()

    def feed(self, index: int, row: Mapping[str, Any]) -> Value:
        """An input of the program."""
        if row["dtype"] not in DTYPES.values():
            raise Refused(f"input {row['name']!r} is {row['dtype']}, which Paddle does not have")
        shape = [-1 if n is None else n for n in row["shape"]]
        data = paddle.static.data(f"x{index}", shape, row["carrier"])
        value = data if row["carrier"] == row["dtype"] else paddle.cast(data, row["dtype"])
        self.values[row["name"]] = value
        self.given.add(id(value))
        return data

    def give(self, row: Mapping[str, Any]) -> Value:
        """An output of the program: a variable of its own, of the declared dtype."""
        value = self.read(row["name"])
        if row["carrier"] and name_of(value) != row["carrier"]:
            value = paddle.cast(value, row["carrier"])
        elif id(value) in self.given or row["name"] in self.arrays:
            value = paddle.assign(value)
        self.given.add(id(value))
        return value

    def read(self, name: str) -> Value:
        """A value by name; constants are written where they are first read."""
        if not name:
            return None
        if name not in self.values:
            self.values[name] = self._constant(self.arrays[name])
        return self.values[name]

    def _constant(self, array: np.ndarray[Any, Any]) -> Value:
        if array.dtype == np.void:
            raise Refused("reads a constant of a dtype that Paddle does not have")
        if array.dtype == np.uint16:
            return self._parameter(array, "bfloat16")
        if array.size <= _INLINE and array.size:
            return constant(array)
        if not array.size:
            return paddle.zeros(list(array.shape), str(array.dtype))
        return self._parameter(array, str(array.dtype))

    def _parameter(self, array: np.ndarray[Any, Any], dtype: str) -> Value:
        name = f"w{len(self.parameters)}"
        zero = paddle.nn.initializer.Constant(0.0)
        value = paddle.static.create_parameter(
            list(array.shape), dtype, name, default_initializer=zero
        )
        value.stop_gradient = True
        self.parameters[name] = np.ascontiguousarray(array)
        return value

    def add(self, row: Mapping[str, Any]) -> None:
        """One node."""
        node = self._node(row)
        try:
            op = find(node)
            values = [self._argument(node, i, name, op) for i, name in enumerate(row["inputs"])]
            results = _written(node, op, values)
        except Exception as error:  # Paddle raises whatever its checks raise
            raise NodeError(node, _reason(error)) from error
        results = list(results) if isinstance(results, (list, tuple)) else [results]
        for name, dtype, value in zip(row["results"], node.outputs, results, strict=False):
            if name:
                self.values[name] = _declared(value, dtype)

    def _node(self, row: Mapping[str, Any]) -> Node:
        attributes = {k: self._attribute(v) for k, v in row["attributes"].items()}
        known = [self.arrays.get(name) if name else None for name in row["inputs"]]
        return Node(
            row["name"], row["op"], row["since"], attributes, row["dtypes"], row["declared"],
            row["wanted"], known,
        )  # fmt: skip

    def _attribute(self, value: Any) -> Any:
        return self.arrays[value["constant"]] if isinstance(value, dict) else value

    def _argument(self, node: Node, index: int, name: str, op: Any) -> Any:
        if index not in op.host or not name:
            return self.read(name)
        array = node.known[index]
        if array is not None:
            return array.tolist()
        if index in op.open:
            return self.read(name)
        raise Refused(f"takes input {index} as a constant; found a value computed at run time")


def _written(node: Node, op: Op, values: list[Any]) -> Any:
    """The node in Paddle's own calls; in wider dtypes where Paddle has no kernel for a narrow."""
    run = op.run if op.bare else partial(op.run, node)
    if op.wide:
        values = [widened(v, halves=False) for v in values]
    try:
        return run(*values)
    except TypeError:
        if not any(map(is_narrow, values)):
            raise
    return run(*(widened(v, halves=True) for v in values))


def _declared(value: Value, dtype: str) -> Value:
    wrong = dtype in DTYPES.values() and name_of(value) != dtype
    return paddle.cast(value, dtype) if wrong else value


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Paddle puts its message last, after the C++ and Python call stacks.
    chosen = next((x for x in lines if "Error:" in x), lines[0] if lines else "")
    text = chosen if isinstance(error, Refused) else f"{type(error).__name__}: {chosen}"
    return text[:300]


def reason(error: BaseException) -> str:
    """What a Paddle error says, without its stacks."""
    return _reason(error if isinstance(error, Exception) else RuntimeError(str(error)))


__all__: Sequence[str] = ["NodeError", "build", "reason"]
