"""What a node, a boundary and a session call cost on a machine of measured speeds.

Node time = (max(FLOPs / rate, bytes / bandwidth) + the engine's own step) / the backend's `speed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autoglm.plan.work import Work

# Bytes of one element after a precision was applied to a float tensor, and whose rate it runs at.
_PRECISION = {
    "fp16": (2, "float16"),
    "bf16": (2, "bfloat16"),
    "int8": (1, "int8"),
    "int8-dynamic": (1, "int8"),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """Speeds of one machine; the defaults are one slow core's, so that no gain is promised.

    GB/s count the payload once (a copy of 1 GB at 5 GB/s takes 0.2 s). `dispatch_s` is one session
    call, by backend, "" for those not measured; `node_s` one node's share of an engine's own loop.
    """

    gemm_gflops: Mapping[str, float] = field(
        default_factory=lambda: {
            "float32": 40.0,
            "float64": 20.0,
            "float16": 40.0,
            "bfloat16": 40.0,
            "int8": 60.0,
        }
    )
    vector_gflops: float = 4.0
    read_gbps: float = 8.0
    copy_gbps: float = 5.0
    cast_gbps: float = 2.0
    layout_gbps: float = 1.0
    dispatch_s: Mapping[str, float] = field(default_factory=lambda: {"": 20e-6})
    node_s: float = 1e-6
    uncertainty: float = 1.0
    source: str = "defaults"

    def dispatch(self, backend: str) -> float:
        """Seconds of one session call of `backend`."""
        return self.dispatch_s.get(backend, self.dispatch_s.get("", 20e-6))

    def rate(self, dtype: str) -> float:
        """GEMM FLOP/s in `dtype`; float32's where it was not measured."""
        return 1e9 * self.gemm_gflops.get(dtype, self.gemm_gflops.get("float32", 40.0))


def node_seconds(work: Work, machine: Machine, *, precision: str, speed: float = 1.0) -> float:
    """Roofline of one node at `precision` on a backend of relative `speed`."""
    dtype, scale = work.dtype, 1.0
    if precision in _PRECISION and dtype == "float32":
        size, dtype = _PRECISION[precision]
        scale = size / 4
    rate = machine.rate(dtype) if work.gemm else 1e9 * machine.vector_gflops
    arithmetic = work.flops / rate
    traffic = (work.bytes_read + work.bytes_written) * scale / (1e9 * machine.read_gbps)
    return (max(arithmetic, traffic) + machine.node_s) / speed


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a boundary: what decides whether a tensor must be cast or laid out anew."""

    backend: str
    precision: str
    layout: str


def boundary_kinds(producer: Side, consumer: Side, dtype: str, rank: int) -> tuple[str, ...]:
    """What happens to a tensor on its way between two partitions; a copy always does.

    A cast where the two compute in different precisions, for floats; a new layout where they prefer
    different ones, for tensors of image or volume rank (4 and 5), the only ones that engines block.
    """
    kinds = ["copy"]
    if producer.precision != consumer.precision and "float" in dtype:
        kinds.append("cast")
    if producer.layout != consumer.layout and rank in (4, 5):
        kinds.append("layout")
    return tuple(kinds)


def boundary_seconds(kinds: tuple[str, ...], size_bytes: int, machine: Machine) -> float:
    """Seconds to bring `size_bytes` across; session calls are priced with their partition."""
    rates = {"copy": machine.copy_gbps, "cast": machine.cast_gbps, "layout": machine.layout_gbps}
    return sum(size_bytes / (1e9 * rates[kind]) for kind in kinds)
