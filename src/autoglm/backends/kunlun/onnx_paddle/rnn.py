"""RNN, GRU and LSTM, unrolled over a known number of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paddle
import paddle.nn.functional as F

from .op import Node, Op, Refused, Table, Value, full_like, name_of, size

State = tuple[Value, ...]

_FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    "relu": F.relu,
    "tanh": paddle.tanh,
    "sigmoid": F.sigmoid,
    "softsign": F.softsign,
}


@dataclass(frozen=True)
class Weights:
    """One direction's weights and functions."""

    node: Node
    w: Value
    r: Value
    wb: Value
    rb: Value
    peephole: Value
    functions: tuple[Callable[[Value], Value], ...]

    def clip(self, x: Value) -> Value:
        """Pre-activations within the node's bound."""
        bound = self.node["clip"]
        return paddle.clip(x, -bound, bound) if bound else x


def _linear(x: Value, w: Value, b: Value) -> Value:
    y = paddle.matmul(x, w, False, True)
    return y if b is None else y + b


def _part(x: Value, i: int, width: int, axis: int, count: int = 1) -> Value:
    return paddle.slice(x, [axis], [i * width], [(i + count) * width])


def _rnn_step(weights: Weights, x: Value, state: State) -> State:
    (h,) = state
    return (weights.functions[0](weights.clip(x + _linear(h, weights.r, weights.rb))),)


def _gru_step(weights: Weights, x: Value, state: State) -> State:
    (h,) = state
    width = size(h, 1)
    f, g = weights.functions
    bias = weights.rb
    inner = _linear(
        h, _part(weights.r, 0, width, 0, 2), None if bias is None else _part(bias, 0, width, 0, 2)
    )
    both = f(weights.clip(_part(x, 0, width, 1, 2) + inner))
    update, reset = _part(both, 0, width, 1), _part(both, 1, width, 1)
    r, b = _part(weights.r, 2, width, 0), None if bias is None else _part(bias, 2, width, 0)
    if weights.node["linear_before_reset"]:
        hidden = reset * _linear(h, r, b)
    else:
        hidden = _linear(reset * h, r, b)
    candidate = g(weights.clip(_part(x, 2, width, 1) + hidden))
    return (candidate - update * candidate + update * h,)


def _lstm_step(weights: Weights, x: Value, state: State) -> State:
    h, c = state
    width = size(h, 1)
    f, g, k = weights.functions
    gates = x + _linear(h, weights.r, weights.rb)
    i, o, forget, cell = (_part(gates, n, width, 1) for n in range(4))
    p = weights.peephole
    if p is not None:
        i, forget = i + _part(p, 0, width, 0) * c, forget + _part(p, 2, width, 0) * c
    i = f(weights.clip(i))
    forget = full_like(i, 1.0) - i if weights.node["input_forget"] else f(weights.clip(forget))
    c = forget * c + i * g(weights.clip(cell))
    if p is not None:
        o = o + _part(p, 1, width, 0) * c
    return f(weights.clip(o)) * k(c), c


@dataclass(frozen=True)
class _Cell:
    gates: int
    states: int
    functions: tuple[str, ...]
    step: Callable[[Weights, Value, State], State]


_CELLS = {
    "RNN": _Cell(1, 1, ("Tanh",), _rnn_step),
    "GRU": _Cell(3, 1, ("Sigmoid", "Tanh"), _gru_step),
    "LSTM": _Cell(4, 2, ("Sigmoid", "Tanh", "Tanh"), _lstm_step),
}


def recurrent(
    node: Node, x: Value, w: Value, r: Value, bias: Value = None, lengths: Value = None,
    h: Value = None, c: Value = None, peephole: Value = None,
) -> Any:  # fmt: skip
    """Y, then the last hidden (and cell) states."""
    if lengths is not None:
        raise Refused("runs every step for every batch entry; found sequence_lens")
    if node["activation_alpha"] or node["activation_beta"]:
        raise Refused("takes activations without alpha and beta")
    cell = _CELLS[node.op]
    first = bool(node["layout"])
    if first:
        x = paddle.transpose(x, [1, 0, 2])
        h, c = (None if s is None else paddle.transpose(s, [1, 0, 2]) for s in (h, c))
    ways = size(w, 0)
    functions = _functions(node, cell, ways)
    ys, finals = [], []
    for way in range(ways):
        weights = _weights(node, cell, way, w, r, bias, peephole, functions)
        back = way == 1 or node["direction"] == "reverse"
        y, state = _one_way(cell, weights, x, _start(cell, way, x, r, h, c), back)
        ys.append(y)
        finals.append(state)
    stacked = [paddle.stack([f[i] for f in finals]) for i in range(cell.states)]
    y = paddle.stack(ys, 1)
    if not first:
        return (y, *stacked)
    return (paddle.transpose(y, [2, 0, 1, 3]), *(paddle.transpose(s, [1, 0, 2]) for s in stacked))


def _functions(node: Node, cell: _Cell, ways: int) -> list[Callable[[Value], Value]]:
    names = [n.lower() for n in node["activations"] or cell.functions * ways]
    unknown = [n for n in names if n not in _FUNCTIONS]
    if unknown:
        raise Refused(f"takes activations {', '.join(_FUNCTIONS)}; found {unknown[0]}")
    return [_FUNCTIONS[n] for n in names]


def _pick(x: Value, i: int) -> Value:
    return None if x is None else paddle.squeeze(paddle.slice(x, [0], [i], [i + 1]), [0])


def _weights(
    node: Node, cell: _Cell, way: int, w: Value, r: Value, bias: Value, peephole: Value,
    functions: list[Callable[[Value], Value]],
) -> Weights:  # fmt: skip
    count = len(cell.functions)
    width = cell.gates * size(r, 2)
    both = _pick(bias, way)
    wb, rb = (None if both is None else _part(both, i, width, 0) for i in (0, 1))
    chosen = tuple(functions[way * count : (way + 1) * count])
    return Weights(node, _pick(w, way), _pick(r, way), wb, rb, _pick(peephole, way), chosen)


def _start(cell: _Cell, way: int, x: Value, r: Value, h: Value, c: Value) -> State:
    given = (h, c)[: cell.states]
    zeros = None
    if any(s is None for s in given):
        zeros = paddle.zeros([size(x, 1), size(r, 2)], name_of(x))
    return tuple(zeros if s is None else _pick(s, way) for s in given)


def _one_way(
    cell: _Cell, weights: Weights, x: Value, state: State, back: bool
) -> tuple[Value, State]:
    gates = _linear(x, weights.w, weights.wb)
    steps = range(size(x, 0))
    outputs: dict[int, Value] = {}
    for step in reversed(steps) if back else steps:
        state = cell.step(weights, _pick(gates, step), state)
        outputs[step] = state[0]
    return paddle.stack([outputs[step] for step in steps]), state


_OP = Op(recurrent)
TABLE: Table = {"RNN": _OP, "GRU": _OP, "LSTM": _OP}
