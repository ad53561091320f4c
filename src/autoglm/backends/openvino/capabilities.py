"""The measured operator table, and what each precision really is on this CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from autoglm.backends.openvino.probe import BF16, cpu_flags, version
from autoglm.catalog import load_pack
from autoglm.spec import Capabilities, Constraint, Evidence, Support, Verdict, no, yes

_FP16 = frozenset({"avx512_fp16", "amx_fp16", "asimdhp"})
_INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def precisions() -> Mapping[str, Support]:
    """Each precision; one that the plug-in would silently replace by another is a no."""
    return {
        "fp32": yes(Evidence.MEASURED),
        "bf16": _needs(BF16, "this CPU has no bfloat16 arithmetic"),
        "fp16": _needs(
            _FP16, "this CPU has no float16 arithmetic: asked for it, OpenVINO computes in bfloat16"
        ),
        "int8": _int8(),
        "int8-dynamic": _int8(),
    }


def _needs(features: frozenset[str], otherwise: str) -> Support:
    if cpu_flags() & features:
        return yes(Evidence.MEASURED)
    return no(Constraint.PRECISION, otherwise, Evidence.MEASURED)


def _int8() -> Support:
    from importlib.util import find_spec

    if find_spec("nncf") is None:
        return no(
            Constraint.PRECISION, "nncf is not installed: pip install 'open-autoglm[quantize]'"
        )
    if cpu_flags() & _INT8:
        return yes(Evidence.MEASURED)
    return Support(Verdict.YES, None, "no int8 dot products in hardware: little is gained")


def table() -> Capabilities:
    """The table of the installed version, or of the nearest one measured."""
    return replace(
        load_pack("openvino", version()),
        precisions=precisions(),
        formats=("openvino-ir",),
    )
