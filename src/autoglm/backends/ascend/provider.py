"""ONNX Runtime's CANN provider: the ONNX file is the artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.backends.ascend.toolkit import version
from autoglm.errors import ConfigError
from autoglm.spec import Artifact, CompileOptions, RunOptions
from autoglm.tensor.provider import ProviderSession, open_on

if TYPE_CHECKING:
    import onnx_ir as ir

PROVIDER = "CANNExecutionProvider"
# onnxruntime.ai/docs/execution-providers/community-maintained/CANN-ExecutionProvider.html
_OPTIONS = {
    "npu_mem_limit": (),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "enable_cann_graph": ("0", "1", "true", "false"),
    "dump_graphs": ("0", "1", "true", "false"),
    "precision_mode": (
        *("force_fp32", "force_fp16", "allow_fp32_to_fp16", "must_keep_origin_dtype"),
        *("cube_fp16in_fp32out", "allow_mix_precision"),
    ),
    "op_select_impl_mode": ("high_performance", "high_precision"),
    "optypelist_for_implmode": (),
}
_PRECISION = {"fp32": "must_keep_origin_dtype", "fp16": "force_fp16"}


def keep(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Write the ONNX file, with the provider's options checked."""
    from autoglm.rewrite.lower import lower_opset
    from autoglm.rewrite.save import input_infos, output_infos, save_onnx

    if options.precision not in _PRECISION:
        raise ConfigError(
            "ONNX Runtime's CANN provider computes in fp32 or fp16; found {precision}.",
            precision=options.precision,
        )
    settings = {k: v for k, v in options.settings.items() if k != "engine"}
    for key, value in settings.items():
        allowed = _OPTIONS.get(key)
        if allowed is None or (allowed and value not in allowed):
            raise ConfigError(
                "ONNX Runtime's CANN provider takes {known}; found {key}={value}.",
                known="; ".join(f"{k} {'|'.join(v)}".strip() for k, v in _OPTIONS.items()),
                key=key,
                value=value,
            )
    told = {"precision_mode": _PRECISION[options.precision], **settings}
    save_onnx(lower_opset(model, 18), out / "model.onnx", alignment=options.memory_alignment)
    return Artifact(
        backend="ascend",
        kind="onnx-cann",
        entry="model.onnx",
        toolkit=f"onnxruntime CANN provider, CANN {version()}",
        inputs=input_infos(model),
        outputs=output_infos(model),
        precision=options.precision,
        meta={"options": told},
    )


def open_provider(artifact: Artifact, folder: Path, options: RunOptions) -> ProviderSession:
    """Open on the NPU of that number; never silently on the CPU."""
    number = options.device.rpartition(":")[2] or "0"
    told = {"device_id": number, **artifact.meta.get("options", {}), **options.settings}
    told.pop("engine", None)
    return open_on(
        artifact,
        folder,
        [(PROVIDER, told)],
        hint="pip install onnxruntime-cann 'numpy<2', install CANN, and source its set_env.sh.",
    )
