"""Seconds of prefill and decoding by roofline, with what engines were measured to reach of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoglm.catalog.roofline import BLIND, UNCERTAINTY, Machine, chip_machine
from autoglm.llm.architecture import Architecture
from autoglm.llm.split import Layout
from autoglm.llm.storage import Storage
from autoglm.llm.work import StepWork, decode_work, prefill_work
from autoglm.messages import tr
from autoglm.spec import Chip

# Measured in November 2026 on 2 vCPU of an AMD Zen 4 (33.5 GB/s read, GEMM at n = 512: 222 GFLOP/s
# fp32, 413 bf16, 847 int8), prompts of 512 tokens, GLM-4 models of 0.49 and 1.45 B parameters.
# Decode, llama.cpp (llama-cpp-python 0.3.36) q4_0 and q8_0: 16.4, 34.8 and 24.3 ms a token of
# 0.49 B q4, 1.45 B q4 and 0.49 B q8: beside the arithmetic below, a line through 0.95 of the
# bandwidth and 5.6 ms for 28 layers.
_CPU_BANDWIDTH = 0.95
_CPU_LAYER_S = 0.2e-3
# Prefill, openvino-genai 2026.4.1: int4 436 and 162, int8 379 tokens/s; transformers eager bf16
# 265; fp32 is ONNX Runtime's transformer block of the same run, not a language model.
_CPU_SHARE: Mapping[int, tuple[str, float]] = {
    4: ("int8", 0.52),
    8: ("int8", 0.43),
    16: ("bfloat16", 0.61),
    32: ("float32", 0.78),
}
# These, and openvino-genai's eight sequences (251, 226 and 77 tokens/s), lie within 30 % of what
# this gives; in 16 and 32 bits no fast engine was measured (transformers eager decoded at a
# quarter of it).
_CPU_UNCERTAINTY, _CPU_UNMEASURED = 0.35, 3.0
_KERNELS = 12  # of one decoder layer as engines fuse it
_WAIT_S = 15e-6  # of one small collective; assumed


@dataclass(frozen=True, slots=True)
class Speeds:
    """What one device reaches; None where no source gives the figure."""

    flops: float | None  # FLOP/s in matrix products
    bandwidth: float | None  # bytes/s of weights and cache
    link: float  # bytes/s to the other devices
    layer_s: float  # of each layer, beside both
    overlaps: bool  # arithmetic hides behind reading, or adds to it
    uncertainty: float  # the truth lies within this factor - 1, up or down
    basis: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds of one step, and the term that sets them; None where a figure is not known."""

    seconds: float | None
    arithmetic_s: float | None
    reading_s: float | None
    links_s: float
    bound: str  # arithmetic, bandwidth, links or layers; "" = not known


def machine_speeds(machine: Machine, storage: Storage) -> Speeds:
    """This machine's CPU: its measured rates, times what engines reached of such rates."""
    bits = min((b for b in _CPU_SHARE if b >= storage.bits), default=32)
    dtype, share = _CPU_SHARE[bits]
    if storage.name == "fp16":
        dtype = "float16"
    return Speeds(
        flops=share * machine.rate(dtype),
        bandwidth=1e9 * _CPU_BANDWIDTH * machine.read_gbps,
        link=1e9 * machine.copy_gbps,
        layer_s=_CPU_LAYER_S,
        overlaps=False,
        uncertainty=_CPU_UNCERTAINTY if bits <= 8 else _CPU_UNMEASURED,
        basis=(machine.source,),
    )


def chip_speeds(chip: Chip, compute: str) -> Speeds:
    """A chip of the catalog at the precision it computes in; a figure nobody gives stays None."""
    machine = chip_machine(chip, compute)
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[compute]
    own = compute in chip.peak_tflops
    return Speeds(
        flops=machine.rate(dtype) if chip.peak_tflops else None,
        bandwidth=1e9 * machine.read_gbps if chip.bandwidth_gbps else None,
        link=1e9 * machine.link_gbps,
        layer_s=_KERNELS * machine.node_s,
        overlaps=chip.kind != "cpu",
        uncertainty=UNCERTAINTY if own and chip.bandwidth_gbps else BLIND,
        basis=_basis(machine, chip),
    )


def _basis(machine: Machine, chip: Chip) -> tuple[str, ...]:
    """Where a chip's figures are from; what is left unknown is not assumed."""
    blind = "memory bandwidth" if chip.bandwidth_gbps is None else "\0"
    assumed = (text for text in machine.assumed if blind not in text)
    names = ", ".join(machine.recalled)
    recalled = tr("Of {chip}, recalled and not verified: {names}.", chip=chip.name, names=names)
    return (machine.source, *assumed, *((recalled,) if names else ()))


def prefill(
    arch: Architecture, storage: Storage, layout: Layout, speeds: Speeds, tokens: int
) -> Prediction:
    """A prompt of that many tokens, alone on the device."""
    return predict(prefill_work(arch, storage, layout, tokens), speeds, reads=False)


def decode(
    arch: Architecture,
    storage: Storage,
    layout: Layout,
    speeds: Speeds,
    context: int,
    sequences: int,
) -> Prediction:
    """One token for each sequence; the stages of a pipeline work on shares of them at once."""
    share = -(-sequences // layout.pipeline)
    return predict(decode_work(arch, storage, layout, context, share), speeds, reads=True)


def predict(work: StepWork, speeds: Speeds, *, reads: bool) -> Prediction:
    """The roofline of one step; `reads`: its traffic must be known, its arithmetic may be not."""
    arithmetic = work.flops / speeds.flops if speeds.flops else None
    reading = work.read_bytes / speeds.bandwidth if speeds.bandwidth else None
    links = work.sent_bytes / speeds.link + work.collectives * _WAIT_S
    if (reading if reads else arithmetic) is None:
        return Prediction(None, arithmetic, reading, links, "")
    known = [t for t in (arithmetic, reading) if t is not None]
    core = max(known) if speeds.overlaps else sum(known)
    layers = work.layers * speeds.layer_s
    terms = {
        "arithmetic": arithmetic or 0.0,
        "bandwidth": reading or 0.0,
        "links": links,
        "layers": layers,
    }
    bound = max(terms, key=lambda name: terms[name])
    return Prediction(core + links + layers, arithmetic, reading, links, bound)
