"""ONNX Runtime's CUDA and TensorRT providers: the ONNX file is the artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.backends.cuda.toolkit import engine_version
from autoglm.errors import ConfigError
from autoglm.spec import Artifact, CompileOptions, RunOptions
from autoglm.tensor.provider import Chosen, ProviderSession, open_on

if TYPE_CHECKING:
    import onnx_ir as ir

_NAMES = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
# The newest opset of ONNX Runtime 1.24; provider options: onnxruntime.ai/docs/execution-providers.
_FP16 = {"fp32": "0", "fp16": "1"}


def keep(model: ir.Model, options: CompileOptions, out: Path, reason: str) -> Artifact:
    """Write the ONNX file, with the providers chosen and told."""
    from autoglm.rewrite.save import input_infos, output_infos, save_onnx

    told = chosen(options)
    save_onnx(model, out / "model.onnx", alignment=options.memory_alignment)
    return Artifact(
        backend="cuda",
        kind="onnx-cuda",
        entry="model.onnx",
        toolkit=f"onnxruntime-gpu {engine_version('onnxruntime')}",
        inputs=input_infos(model),
        outputs=output_infos(model),
        precision=options.precision,
        meta={"engine": "onnxruntime", "reason": reason, "providers": told},
    )


def chosen(options: CompileOptions) -> list[list[object]]:
    """The providers in order, each with its options: `providers = tensorrt,cuda` or `cuda`.

    A setting `cuda.KEY` or `tensorrt.KEY` is an option of that provider.
    """
    names = options.settings.get("providers", "cuda").split(",")
    if names[-1] != "cuda" or any(name not in _NAMES for name in names):
        raise ConfigError(
            "Setting providers is cuda or tensorrt,cuda; found {found!r}.", found=",".join(names)
        )
    if options.precision not in _FP16 or (options.precision == "fp16" and "tensorrt" not in names):
        raise ConfigError(
            "ONNX Runtime's CUDA provider computes in the model's own precision, fp32; "
            "found {precision}.",
            hint="engine tensorrt, providers tensorrt,cuda (fp16), or backend torch.",
            precision=options.precision,
        )
    # TF32 keeps 10 bits of mantissa: not what fp32 asks for.
    told: dict[str, dict[str, str]] = {"cuda": {"use_tf32": "0"}, "tensorrt": {}}
    told["tensorrt"]["trt_fp16_enable"] = _FP16[options.precision]
    for key, value in options.settings.items():
        owner, dot, name = key.partition(".")
        if key in ("engine", "providers"):
            continue
        if not dot or owner not in names:
            raise ConfigError(
                "ONNX Runtime on a GPU takes engine, providers, and cuda.KEY or tensorrt.KEY; "
                "found {key!r}.",
                key=key,
            )
        told[owner][name] = value
    return [[_NAMES[name], told[name]] for name in names]


def open_provider(artifact: Artifact, folder: Path, options: RunOptions) -> ProviderSession:
    """Open on the GPU of that number; never silently on the CPU."""
    number = options.device.rpartition(":")[2]
    device = number if number.isdecimal() else "0"
    pairs: list[Chosen] = [
        (str(name), {"device_id": device, **told}) for name, told in artifact.meta["providers"]
    ]
    return open_on(
        artifact,
        folder,
        pairs,
        hint="pip install onnxruntime-gpu, with its CUDA and cuDNN beside it.",
    )
