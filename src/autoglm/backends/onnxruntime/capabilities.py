"""The measured operator table, and what each precision means on this engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from autoglm.backends.onnxruntime.probe import cpu_features, version
from autoglm.catalog import load_pack
from autoglm.spec import Capabilities, Constraint, Evidence, Support, Verdict, no, yes

_VNNI = frozenset({"avx512_vnni", "avx_vnni", "asimddp", "i8mm"})


def precisions() -> Mapping[str, Support]:
    """Each precision with what it does on this CPU."""
    return {
        "fp32": yes(Evidence.MEASURED),
        "fp16": _fp16(),
        "bf16": no(
            Constraint.PRECISION,
            "the CPU provider has no bfloat16 kernel for Conv, MatMul or Gemm",
            Evidence.MEASURED,
        ),
        "int8": _int8("static"),
        "int8-dynamic": _int8("dynamic"),
    }


def _fp16() -> Support:
    if "asimdhp" in cpu_features():
        return yes()
    reason = "weights are held in float16; this CPU computes them in float32, so it is not faster"
    return Support(Verdict.YES, None, reason, Evidence.MEASURED)


def _int8(kind: str) -> Support:
    if cpu_features() & _VNNI:
        return Support(
            Verdict.YES, None, f"{kind}; int8 dot products in hardware", Evidence.MEASURED
        )
    reason = f"{kind}; no int8 dot products in hardware, so weights keep 7 bits"
    return Support(Verdict.YES, None, reason, Evidence.DOCUMENT)


def has_int8_dot() -> bool:
    """Whether this CPU multiplies int8 without overflow in 16 bits."""
    return bool(cpu_features() & _VNNI)


def table() -> Capabilities:
    """The table of the installed version, or of the nearest one measured."""
    return replace(
        load_pack("onnxruntime", version()),
        precisions=precisions(),
        layouts=("NCHW",),
        formats=("onnx",),
    )
