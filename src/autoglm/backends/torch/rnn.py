"""RNN, GRU and LSTM: directions, lengths, peepholes, clipping and every activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from autoglm.backends.torch.op import Node, Op, Table
from autoglm.rewrite.program import Call

State: TypeAlias = tuple[Tensor, ...]
Function: TypeAlias = Callable[[Tensor, float, float], Tensor]

# Activation -> function of (x, alpha, beta), and the defaults of alpha and beta.
_ACTIVATIONS: dict[str, tuple[Function, float, float]] = {
    "relu": (lambda x, a, b: x.relu(), 0, 0),
    "tanh": (lambda x, a, b: x.tanh(), 0, 0),
    "sigmoid": (lambda x, a, b: x.sigmoid(), 0, 0),
    "affine": (lambda x, a, b: a * x + b, 1, 0),
    "leakyrelu": (lambda x, a, b: torch.where(x < 0, a * x, x), 0.01, 0),
    "thresholdedrelu": (lambda x, a, b: torch.where(x > a, x, torch.zeros_like(x)), 1, 0),
    "scaledtanh": (lambda x, a, b: a * (b * x).tanh(), 1, 1),
    "hardsigmoid": (lambda x, a, b: (a * x + b).clamp(0, 1), 0.2, 0.5),
    "elu": (lambda x, a, b: torch.where(x < 0, a * x.expm1(), x), 1, 0),
    "softsign": (lambda x, a, b: x / (1 + x.abs()), 0, 0),
    "softplus": (lambda x, a, b: torch.logaddexp(x, torch.zeros_like(x)), 0, 0),
}
_TAKES = {
    "affine": 2,
    "leakyrelu": 1,
    "thresholdedrelu": 1,
    "scaledtanh": 2,
    "hardsigmoid": 2,
    "elu": 1,
}


@dataclass(frozen=True, slots=True)
class Weights:
    """One direction's weights and functions."""

    node: Node
    w: Tensor
    r: Tensor
    wb: Tensor
    rb: Tensor
    peephole: Tensor | None
    functions: tuple[Callable[[Tensor], Tensor], ...]

    def clip(self, x: Tensor) -> Tensor:
        """Pre-activations within the node's bound."""
        bound = self.node["clip"]
        return x if not bound else x.clamp(-bound, bound)

    def gates(self, x: Tensor) -> Tensor:
        """The input's part of every gate, for all steps at once."""
        return F.linear(x, self.w, self.wb)


def _rnn_step(weights: Weights, x: Tensor, state: State) -> State:
    (h,) = state
    return (weights.functions[0](weights.clip(x + F.linear(h, weights.r, weights.rb))),)


def _gru_step(weights: Weights, x: Tensor, state: State) -> State:
    (h,) = state
    size = h.shape[-1]
    f, g = weights.functions
    inner = F.linear(h, weights.r[: 2 * size], weights.rb[: 2 * size])
    both = f(weights.clip(x[:, : 2 * size] + inner))
    update, reset = both[:, :size], both[:, size:]
    r, bias = weights.r[2 * size :], weights.rb[2 * size :]
    if weights.node["linear_before_reset"]:
        hidden = reset * F.linear(h, r, bias)
    else:
        hidden = F.linear(reset * h, r, bias)
    candidate = g(weights.clip(x[:, 2 * size :] + hidden))
    return ((1 - update) * candidate + update * h,)


def _lstm_step(weights: Weights, x: Tensor, state: State) -> State:
    h, c = state
    f, g, k = weights.functions
    gates = x + F.linear(h, weights.r, weights.rb)
    i, o, forget, cell = gates.chunk(4, -1)
    if weights.peephole is not None:
        pi, po, pf = weights.peephole.chunk(3)
        i, forget = i + pi * c, forget + pf * c
    i = f(weights.clip(i))
    forget = 1 - i if weights.node["input_forget"] else f(weights.clip(forget))
    c = forget * c + i * g(weights.clip(cell))
    if weights.peephole is not None:
        o = o + po * c
    return f(weights.clip(o)) * k(c), c


@dataclass(frozen=True, slots=True)
class _Cell:
    gates: int
    states: int
    functions: tuple[str, ...]
    step: Callable[[Weights, Tensor, State], State]


_CELLS = {
    "RNN": _Cell(1, 1, ("Tanh",), _rnn_step),
    "GRU": _Cell(3, 1, ("Sigmoid", "Tanh"), _gru_step),
    "LSTM": _Cell(4, 2, ("Sigmoid", "Tanh", "Tanh"), _lstm_step),
}


def _functions(node: Node, cell: _Cell, directions: int) -> list[Callable[[Tensor], Tensor]]:
    names = list(node["activations"] or cell.functions)
    if len(names) < len(cell.functions) * directions:
        names = names * directions
    alphas, betas = list(node["activation_alpha"] or ()), list(node["activation_beta"] or ())
    return [_function(name.lower(), alphas, betas) for name in names]


def _function(name: str, alphas: list[float], betas: list[float]) -> Callable[[Tensor], Tensor]:
    # alpha and beta are listed only for the functions that take them, in order.
    run, alpha, beta = _ACTIVATIONS[name]
    takes = _TAKES.get(name, 0)
    if takes >= 1 and alphas:
        alpha = alphas.pop(0)
    if takes >= 2 and betas:
        beta = betas.pop(0)
    return lambda x: run(x, alpha, beta)


def _one_way(
    cell: _Cell, weights: Weights, x: Tensor, state: State, lengths: Tensor | None
) -> tuple[Tensor, State]:
    outputs = []
    gates = weights.gates(x)
    for step in range(x.shape[0]):
        following = cell.step(weights, gates[step], state)
        out = following[0]
        if lengths is not None:
            live = (step < lengths)[:, None]
            following = tuple(
                torch.where(live, a, b) for a, b in zip(following, state, strict=True)
            )
            out = torch.where(live, out, torch.zeros_like(out))
        outputs.append(out)
        state = following
    return (torch.stack(outputs) if outputs else x.new_zeros(0, *state[0].shape)), state


def _backwards(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence reversed within its own length."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(x.shape[0], device=x.device)[:, None]
    source = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return torch.gather(x, 0, source[:, :, None].expand(x.shape))


def recurrent(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    peephole: Tensor | None = None,
) -> Any:
    """Y, then the last hidden (and cell) states."""
    cell = _CELLS[node.call.op]
    batch_first = bool(node["layout"])
    if batch_first:
        x = x.transpose(0, 1)
        h, c = (None if s is None else s.transpose(0, 1) for s in (h, c))
    ways, hidden = w.shape[0], r.shape[-1]
    functions = _functions(node, cell, ways)
    count = len(cell.functions)
    lengths = None if lengths is None else lengths.to(torch.int64)
    ys: list[Tensor] = []
    finals: list[State] = []
    for way in range(ways):
        zeros = x.new_zeros(x.shape[1], hidden)
        state = tuple(zeros if s is None else s[way] for s in (h, c)[: cell.states])
        wb, rb = _biases(bias, way, cell.gates * hidden, w)
        weights = Weights(
            node, w[way], r[way], wb, rb, None if peephole is None else peephole[way],
            tuple(functions[way * count : (way + 1) * count]),
        )  # fmt: skip
        back = way == 1 or node["direction"] == "reverse"
        y, state = _one_way(cell, weights, _backwards(x, lengths) if back else x, state, lengths)
        ys.append(_backwards(y, lengths) if back else y)
        finals.append(state)
    stacked = [torch.stack([f[i] for f in finals]) for i in range(cell.states)]
    return _laid_out(torch.stack(ys, 1), stacked, batch_first)


def _biases(bias: Tensor | None, way: int, size: int, w: Tensor) -> tuple[Tensor, Tensor]:
    if bias is None:
        return w.new_zeros(size), w.new_zeros(size)
    return bias[way, :size], bias[way, size:]


def _laid_out(y: Tensor, states: list[Tensor], batch_first: bool) -> tuple[Tensor, ...]:
    if not batch_first:
        return (y, *states)
    return (y.permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in states))


def check_activations(call: Call) -> str:
    """Known activations; output_sequence and layouts as of opset 7."""
    unknown = [a for a in call.attributes.get("activations") or () if a.lower() not in _ACTIVATIONS]
    if unknown:
        return f"activation {unknown[0]} is unknown"
    return "" if call.since >= 7 else "mapped as of opset 7"


_OP = Op(recurrent, check=check_activations)
TABLE: Table = {"RNN": _OP, "GRU": _OP, "LSTM": _OP}
