"""Seconds of one node on a processor of known speeds: this machine's as measured, or a chip's as
its catalog entry lets them be estimated.

Node time = (max(FLOPs / rate, bytes / bandwidth) * the operator's factor + its rounds * the
operator's own step + the engine's own step) / the backend's `speed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autoglm.catalog.chips import RECALLED
from autoglm.catalog.work import Work
from autoglm.spec import Chip

# Bytes of one element after a precision was applied to a float tensor, and whose rate it runs at.
_PRECISION = {
    "fp16": (2, "float16"),
    "bf16": (2, "bfloat16"),
    "int8": (1, "int8"),
    "int8-dynamic": (1, "int8"),
}

# What compiled models reach of a published figure: inside what accelerators are seen to reach
# (20 to 80 % of peak), so that the true time is taken to lie within UNCERTAINTY of the estimate.
PEAK_SHARE, BANDWIDTH_SHARE, LINK_SHARE = 0.4, 0.6, 0.7
UNCERTAINTY, BLIND = 1.5, 4.0  # within x2.5; within x5 where a figure is unknown
_LAUNCH_S, _CALL_S = 3e-6, 50e-6  # one kernel of a compiled graph; one call, with its wait
_VECTOR_SHARE = 1 / 16  # of the matrix rate: vector units beside matrix units
_BLIND_TFLOPS, _BLIND_GBPS, _BLIND_LINK = 0.5, 25.0, 4.0

_DTYPES = {
    "fp64": "float64",
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "int8": "int8",
}
# Whose rate is taken, and how much of it, where a chip's own is not published; never a gain.
_INSTEAD: Mapping[str, tuple[tuple[str, float], ...]] = {
    "fp64": (("fp32", 1 / 32), ("fp16", 1 / 64)),
    "fp32": (("fp16", 1 / 8), ("bf16", 1 / 8), ("unstated", 1 / 8), ("int8", 1 / 16)),
    "fp16": (("bf16", 1.0), ("fp32", 1.0), ("unstated", 1 / 2), ("int8", 1 / 4)),
    "bf16": (("fp16", 1.0), ("fp32", 1.0), ("unstated", 1 / 2), ("int8", 1 / 4)),
    "int8": (("fp16", 1.0), ("bf16", 1.0), ("fp32", 1.0), ("unstated", 1 / 2)),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """Speeds of one processor; the defaults are one slow core's, so that no gain is promised.

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
    wake_s: float = (
        0.0  # more for a call that waited for a chip: its threads sleep, caches are cold
    )
    # operator -> its measured time over the roofline's; those not named run at the roofline
    factors: Mapping[str, float] = field(default_factory=dict)
    round_s: Mapping[str, float] = field(default_factory=dict)  # operator -> of one of its rounds
    link_gbps: float = 0.0  # to the host; 0 = it is the host
    chip: str = ""  # the catalog's chip that these speeds are estimated from; "" = measured
    assumed: tuple[str, ...] = ()  # what was taken where the catalog has no figure
    recalled: tuple[str, ...] = ()  # what the catalog has from memory only

    def dispatch(self, backend: str) -> float:
        """Seconds of one session call of `backend`."""
        return self.dispatch_s.get(backend, self.dispatch_s.get("", 20e-6))

    def rate(self, dtype: str) -> float:
        """GEMM FLOP/s in `dtype`; float32's where it was not measured."""
        return 1e9 * self.gemm_gflops.get(dtype, self.gemm_gflops.get("float32", 40.0))

    def link_seconds(self, size_bytes: float) -> float:
        """Seconds to bring that much from or to the host; 0 where it is the host."""
        return size_bytes / (1e9 * self.link_gbps) if self.link_gbps else 0.0


def node_seconds(
    work: Work, machine: Machine, *, precision: str, speed: float = 1.0, op: str = ""
) -> float:
    """Roofline of one node at `precision` on a backend of relative `speed`."""
    dtype, scale = work.dtype, 1.0
    if precision in _PRECISION and dtype == "float32":
        size, dtype = _PRECISION[precision]
        scale = size / 4
    rate = machine.rate(dtype) if work.gemm else 1e9 * machine.vector_gflops
    arithmetic = work.flops / rate
    traffic = (work.bytes_read + work.bytes_written) * scale / (1e9 * machine.read_gbps)
    bound = max(arithmetic, traffic) * machine.factors.get(op, 1.0)
    rounds = work.rounds * machine.round_s.get(op, 0.0)
    return (bound + rounds + machine.node_s) / speed


def chip_machine(chip: Chip, precision: str) -> Machine:
    """What the catalog's figures promise at `precision`; figures it lacks are low, and named."""
    assumed: list[str] = []
    wanted = precision.removesuffix("-dynamic")
    used = ["memory_bytes", "bandwidth_gbps", "link_gbps"]
    rates = {}
    for name, dtype in _DTYPES.items():
        peak, of, share = _peak(chip, name)
        rates[dtype] = 1e3 * PEAK_SHARE * peak
        if name == wanted:
            used.append(of)
        if name == wanted and of != name:
            basis = f"{share:.3g} of {of}" if of else "a guess"
            assumed.append(f"its {name} rate is unknown, {peak:g} TFLOPS ({basis}) is taken")
    bandwidth = chip.bandwidth_gbps
    if bandwidth is None:
        bandwidth = _BLIND_GBPS
        assumed.append(f"its memory bandwidth is unknown, {bandwidth:g} GB/s is taken")
    link = chip.link_gbps
    if link is None:
        link = _BLIND_LINK / LINK_SHARE
        assumed.append(f"its link to the host is unknown, {_BLIND_LINK:g} GB/s is taken")
    reached = BANDWIDTH_SHARE * bandwidth
    return Machine(
        gemm_gflops=rates,
        vector_gflops=_VECTOR_SHARE * rates.get(_DTYPES.get(wanted, ""), rates["float32"]),
        read_gbps=reached,
        copy_gbps=reached,
        cast_gbps=reached,
        layout_gbps=reached,
        dispatch_s={"": _CALL_S},
        node_s=_LAUNCH_S,
        uncertainty=BLIND if assumed else UNCERTAINTY,
        source=f"estimated from the catalog: {chip.name}",
        link_gbps=LINK_SHARE * link,
        chip=chip.name,
        assumed=tuple(assumed),
        recalled=tuple(f for f in used if chip.evidence.get(f) == RECALLED),
    )


def _peak(chip: Chip, precision: str) -> tuple[float, str, float]:
    """Its dense TFLOPS, of which published precision ("" = a guess), and what share of it."""
    for name, share in ((precision, 1.0), *_INSTEAD[precision]):
        if name in chip.peak_tflops:
            return chip.peak_tflops[name] * share, name, share
    return _BLIND_TFLOPS, "", 1.0
