"""What TensorRT and ONNX Runtime's CUDA provider publish; a node is taken where either takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from autoglm.catalog.documented import Document, capabilities, pick_chip, read_document
from autoglm.catalog.precision import of_chip
from autoglm.spec import (
    Capabilities,
    Chip,
    Constraint,
    Evidence,
    NodeFacts,
    OpRule,
    Support,
    no,
)

_FOLDER = Path(__file__).parent


def tensorrt() -> Document:
    """The operators that TensorRT's ONNX parser takes."""
    return read_document(_FOLDER / "tensorrt.toml")


def onnxruntime() -> Document:
    """The operators that have a kernel in ONNX Runtime's CUDA provider."""
    return read_document(_FOLDER / "onnxruntime.toml")


def support(node: NodeFacts) -> Support:
    """TensorRT's yes, else the CUDA provider's; both reasons where neither takes the node."""
    first = tensorrt().support(node)
    if first.ok:
        return first
    second = onnxruntime().support(node)
    if second.ok:
        return Support(second.verdict, None, f"not by TensorRT: {first.reason}", second.evidence)
    return replace(second, reason=f"{first.reason}; {second.reason}")


def table(arch: str = "") -> Capabilities:
    """The table of that GPU; the default GPU's where none is named."""
    chip = pick_chip("cuda", arch)
    base = capabilities(onnxruntime(), chip, precisions(chip))
    rule = OpRule(when=support, evidence=Evidence.DOCUMENT)
    known = (tensorrt().rows, tensorrt().refused, onnxruntime().rows)
    toolkit = f"{tensorrt().toolkit} or {onnxruntime().toolkit}"
    ops = dict.fromkeys((op for ops in known for op in ops), rule)
    return replace(base, toolkit=toolkit, table=ops)


def precisions(chip: Chip) -> Mapping[str, Support]:
    """Each precision this GPU computes in."""
    int8 = no(
        Constraint.PRECISION,
        "int8 is taken from QuantizeLinear and DequantizeLinear in the model; it is not made here",
        Evidence.DOCUMENT,
    )
    return {
        **{name: of_chip(chip, name) for name in ("fp32", "fp16", "bf16")},
        "int8": int8,
        "int8-dynamic": int8,
    }
