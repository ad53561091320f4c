"""Choose the engine, and build a TensorRT plan in a child process or keep the ONNX file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm import toolchain
from autoglm.backends.cuda.capabilities import precisions, tensorrt
from autoglm.backends.cuda.settings import build_order
from autoglm.backends.cuda.toolkit import ENGINES, engine_version, missing
from autoglm.catalog.documented import pick_chip
from autoglm.catalog.precision import require_precision
from autoglm.errors import ConfigError
from autoglm.spec import Artifact, CompileOptions

if TYPE_CHECKING:
    import onnx_ir as ir

_ENTRY = "model.plan"
# docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html, TensorRT 11.x
_NEWEST = 25


def compile_model(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Build for the engine that `choose` names; its reason stays in the artifact."""
    _refuse(options)
    engine, reason = choose(model, options.settings.get("engine", "auto"))
    if engine == "onnxruntime":
        from autoglm.backends.cuda.provider import keep

        return keep(model, options, out, reason)
    return _build(model, options, out, reason)


def choose(model: ir.Model, asked: str) -> tuple[str, str]:
    """The engine and why: TensorRT where its list has every node, else ONNX Runtime.

    TensorRT compiles ahead and fuses most; ONNX Runtime has a kernel for more operators. PyTorch
    is a backend of its own (torch, device cuda), so that its measured table is used.
    """
    if asked == "torch":
        raise ConfigError(
            "PyTorch on a GPU is backend torch with device cuda.",
            hint="Ask for backend torch, device cuda, and setting compile = inductor.",
        )
    if asked not in ("auto", *ENGINES):
        raise ConfigError(
            "Setting engine of backend cuda is auto, {known}; found {found!r}.",
            known=", ".join(ENGINES),
            found=asked,
        )
    if asked != "auto":
        if not engine_version(asked):
            raise missing(asked)
        return asked, "asked for"
    refused = _refused(model)
    if engine_version("tensorrt") and not refused:
        return "tensorrt", "TensorRT's list has every node"
    if engine_version("onnxruntime"):
        return "onnxruntime", refused or "TensorRT is not installed"
    raise missing("tensorrt" if not refused else "onnxruntime")


def _refused(model: ir.Model) -> str:
    from autoglm.rewrite.facts import node_facts

    for facts in node_facts(model):
        verdict = tensorrt().support(facts)
        if not verdict.ok:
            return f"node {facts.name}: {verdict.reason}"
    return ""


def _build(model: ir.Model, options: CompileOptions, out: Path, reason: str) -> Artifact:
    from autoglm.rewrite.half import to_half
    from autoglm.rewrite.lower import lower_opset
    from autoglm.rewrite.save import input_infos, output_infos, save_onnx

    inputs, outputs = input_infos(model), output_infos(model)
    quantised = any(n.op_type == "QuantizeLinear" for n in model.graph.all_nodes())
    told = build_order(inputs, options, quantised=quantised)
    lowered = lower_opset(model, tensorrt().newest)
    if told["precision_flag"] and _strongly_typed():
        lowered = to_half(lowered, options.precision, opset=_NEWEST)
        told["precision_flag"] = ""
    save_onnx(lowered, out / "model.onnx", alignment=options.memory_alignment)
    number = options.device.rpartition(":")[2]
    order = {
        **told,
        "device": int(number) if number.isdecimal() else 0,
        "model": str(out / "model.onnx"),
        "output": str(out / f"{_ENTRY}.part"),
    }
    (out / "order.json").write_text(json.dumps(order, indent=2), "utf-8")
    argv = [sys.executable, "-m", "autoglm.backends.cuda.build", str(out / "order.json")]
    # No memory limit: CUDA reserves more address space than any machine has memory.
    toolchain.run(argv, log=out / "tensorrt.log", timeout_s=options.timeout_s)
    (out / f"{_ENTRY}.part").rename(out / _ENTRY)
    for name in ("model.onnx", "model.data", "order.json"):
        (out / name).unlink(missing_ok=True)
    return Artifact(
        backend="cuda",
        kind="tensorrt",
        entry=_ENTRY,
        toolkit=f"tensorrt {engine_version('tensorrt')}",
        inputs=inputs,
        outputs=outputs,
        precision=options.precision,
        meta={"engine": "tensorrt", "reason": reason, "order": told},
    )


def _strongly_typed() -> bool:
    """From 11 on TensorRT has no precision flags: it builds what the model's own dtypes say."""
    major = engine_version("tensorrt").partition(".")[0]
    return major.isdecimal() and int(major) >= 11


def _refuse(options: CompileOptions) -> None:
    chip = pick_chip("cuda", options.arch)
    require_precision(f"cuda {chip.name}", precisions(chip), options)
    if options.keep_high:
        raise ConfigError("Backend cuda cannot keep single nodes in fp32; backend torch can.")
