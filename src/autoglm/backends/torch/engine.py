"""Binds each node to its kernel: look-up, precision, host arguments, dtypes that torch lacks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from autoglm.backends.torch.dtypes import TORCH, to_tensor
from autoglm.backends.torch.op import Kernel, Kind, Node, Op
from autoglm.backends.torch.table import TABLE
from autoglm.errors import CompileError, ExecutionError
from autoglm.rewrite.program import Call

if TYPE_CHECKING:
    import onnx_ir as ir

_WIDE = {"uint16": torch.uint16, "uint32": torch.uint32, "uint64": torch.uint64}
_FP8 = {name for name in TORCH if name.startswith("float8")}
_BITS = {
    torch.uint16: torch.int16,
    torch.uint32: torch.int32,
    torch.uint64: torch.int64,
    **{TORCH[name]: torch.uint8 for name in _FP8},
}
_FLIP = -(1 << 63)
LOW = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchEngine:
    """The kernels of one session: its device, its precision, and the nodes that stay in fp32."""

    def __init__(
        self,
        device: torch.device,
        precision: str = "fp32",
        keep_high: frozenset[str] = frozenset(),
        load: bool = True,
        wait: Callable[[], object] | None = None,
    ) -> None:
        self.device = device
        self.low = LOW[precision]
        self.keep_high = keep_high
        self.load = load
        self.wait = wait  # after every node, so that a node's time is its own
        self.default = "" if self.low is None else "low"

    def bind(self, call: Call) -> Callable[..., Any]:
        """The node's kernel with everything that is known now; CompileError where there is none."""
        op = find(call)
        node = Node(call, self.device, None if self._high(call) else self.low)
        run: Kernel = op.run if op.bare else partial(op.run, node)
        run = _on_host(run, op, call)
        run = _dtypes(run, op, call)
        if self.wait is not None:
            run = _waited(run, self.wait)
        if self.low is None or call.bodies:
            return run
        return _raised(run, call, self.low) if self._high(call) else _lowered(run, call, self.low)

    def _high(self, call: Call) -> bool:
        return find(call).high or not call.sources.isdisjoint(self.keep_high)

    def variant(self, call: Call, position: int) -> str | None:
        """ "low" for a float constant of a lowered node; None where the kernel holds the value."""
        op = find(call)
        if position in op.host and call.known[position] is not None:
            return None
        return "low" if self.low is not None and not self._high(call) else ""

    def constant(self, tensor: ir.TensorProtocol, variant: str) -> torch.Tensor | None:
        """The constant on the device, in the precision asked for."""
        if not self.load:
            return None
        held = to_tensor(tensor.numpy())
        if variant == "low" and held.dtype is torch.float32 and self.low is not None:
            held = lower(held, self.low)
        try:
            return held.to(self.device)
        except (RuntimeError, TypeError, AssertionError) as error:
            raise ExecutionError(
                "Device {device} cannot hold a {dtype} constant: {cause}.",
                device=str(self.device),
                dtype=str(held.dtype),
                cause=str(error).splitlines()[0],
            ) from error


def find(call: Call) -> Op:
    """The table's row for this node; CompileError says what is missing."""
    entry = TABLE.get(call.op)
    if isinstance(entry, dict):
        entry = next((entry[v] for v in sorted(entry, reverse=True) if v <= call.since), None)
    if not isinstance(entry, Op):
        raise CompileError(
            "Node {node!r}: {op} of opset {since} is not mapped to PyTorch.",
            node=call.name,
            op=call.op,
            since=call.since,
        )
    reason = _unheld(entry, call) or (entry.check(call) if entry.check else "")
    if reason:
        raise CompileError(
            "Node {node!r}: {op}: {reason}.", node=call.name, op=call.op, reason=reason
        )
    return entry


def _unheld(op: Op, call: Call) -> str:
    for name in (*call.inputs, *call.outputs):
        if name and name not in TORCH:
            return f"PyTorch has no dtype {name}"
        if name in _FP8 and op.kind in (Kind.VALUE, Kind.ORDER):
            return f"PyTorch computes nothing in {name}"
    return ""


def lower(tensor: torch.Tensor, low: torch.dtype) -> torch.Tensor:
    """To half precision; finite values stay finite: -inf in a mask makes a NaN of a softmax."""
    limit = torch.finfo(low).max
    return torch.where(tensor.isfinite(), tensor.clamp(-limit, limit), tensor).to(low)


def _waited(run: Kernel, wait: Callable[[], object]) -> Kernel:
    def timed(*inputs: Any) -> Any:
        result = run(*inputs)
        wait()
        return result

    return timed


def _on_host(run: Kernel, op: Op, call: Call) -> Kernel:
    given = {i: call.known[i] for i in op.host if i < call.arity}
    constants = {i: array.tolist() for i, array in given.items() if array is not None}
    dynamic = [i for i in given if i not in constants]
    if not constants and not dynamic:
        return run

    def with_host(*inputs: Any) -> Any:
        values = list(inputs)
        for i, value in constants.items():
            values[i] = value
        for i in dynamic:
            values[i] = None if values[i] is None else values[i].tolist()
        return run(*values)

    return with_host


def _dtypes(run: Kernel, op: Op, call: Call) -> Kernel:
    declared = {*call.inputs, *call.outputs}
    if op.kind is Kind.MOVE and not declared.isdisjoint(_FP8 | set(_WIDE)):
        return partial(_moved, run)
    if op.kind in (Kind.VALUE, Kind.ORDER) and not declared.isdisjoint(_WIDE):
        flip = op.kind is Kind.ORDER and "uint64" in declared
        back = tuple(_WIDE.get(name) for name in call.outputs)
        return partial(_widened, run, flip, back)
    return run


def _moved(run: Kernel, *inputs: Any) -> Any:
    held = next((x.dtype for x in inputs if isinstance(x, torch.Tensor) and x.dtype in _BITS), None)
    if held is None:
        return run(*inputs)
    bits = _BITS[held]
    views = [x.view(bits) if isinstance(x, torch.Tensor) and x.dtype is held else x for x in inputs]
    return _each(run(*views), lambda y, _: y.view(held) if y.dtype is bits else y)


def _widened(run: Kernel, flip: bool, back: tuple[torch.dtype | None, ...], *inputs: Any) -> Any:
    result = run(*(_to_int64(x, flip) for x in inputs))

    def narrow(y: torch.Tensor, index: int) -> torch.Tensor:
        held = back[index] if index < len(back) else None
        if held is None or y.dtype is held:
            return y
        if held is torch.uint64:
            return (y ^ _FLIP if flip else y).view(torch.uint64)
        return y.to(held)

    return _each(result, narrow)


def _to_int64(x: Any, flip: bool) -> Any:
    if not isinstance(x, torch.Tensor) or x.dtype not in _WIDE.values():
        return x
    if x.dtype is not torch.uint64:
        return x.to(torch.int64)
    return x.view(torch.int64) ^ _FLIP if flip else x.view(torch.int64)


def _each(result: Any, change: Callable[[torch.Tensor, int], torch.Tensor]) -> Any:
    if isinstance(result, torch.Tensor):
        return change(result, 0)
    if isinstance(result, tuple):
        return tuple(
            change(y, i) if isinstance(y, torch.Tensor) else y for i, y in enumerate(result)
        )
    if isinstance(result, list):
        return [change(y, 0) if isinstance(y, torch.Tensor) else y for y in result]
    return result


def _lowered(run: Kernel, call: Call, low: torch.dtype) -> Kernel:
    floats = tuple(name == "float32" for name in call.outputs)

    def down(y: torch.Tensor, index: int) -> torch.Tensor:
        single = y.dtype is torch.float32 and index < len(floats) and floats[index]
        return y.to(low) if single else y

    return lambda *inputs: _each(run(*inputs), down)


def _raised(run: Kernel, call: Call, low: torch.dtype) -> Kernel:
    high = {i for i, name in enumerate(call.inputs) if name == "float32"}
    lowered = _lowered(run, call, low)

    def with_floats(*inputs: Any) -> Any:
        return lowered(
            *(
                x.float() if i in high and isinstance(x, torch.Tensor) and x.dtype is low else x
                for i, x in enumerate(inputs)
            )
        )

    return with_floats
