"""Write the model and the builder's configuration, and build in a child process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm import toolchain
from autoglm.backends.cambricon.capabilities import OPSET, precisions
from autoglm.backends.cambricon.config import MODES, builder_config
from autoglm.backends.cambricon.toolkit import missing, version
from autoglm.catalog.documented import pick_chip
from autoglm.catalog.precision import require_precision
from autoglm.errors import ConfigError
from autoglm.spec import Artifact, CompileOptions, Feeds, TensorInfo

if TYPE_CHECKING:
    import onnx_ir as ir

_ENTRY = "model.mm"


def compile_model(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Build `model.mm`; CompileError with MagicMind's log where it refuses the model."""
    from autoglm.rewrite.lower import lower_opset
    from autoglm.rewrite.save import input_infos, output_infos, save_onnx

    _refuse(options)
    inputs, outputs = input_infos(model), output_infos(model)
    told = builder_config(inputs, options, int64=_holds_int64(model))
    if not version():
        raise missing("the module magicmind is not installed")
    lowered = lower_opset(model, OPSET)
    save_onnx(lowered, out / "model.onnx", alignment=options.memory_alignment)
    order = {
        "model": str(out / "model.onnx"),
        "config": told,
        "output": str(out / f"{_ENTRY}.part"),
        "calibration": _samples(inputs, options.calibration, out),
        "algorithm": options.settings.get("calibration_algo", "linear"),
    }
    (out / "order.json").write_text(json.dumps(order, indent=2), "utf-8")
    argv = [sys.executable, "-m", "autoglm.backends.cambricon.build", str(out / "order.json")]
    toolchain.run(
        argv,
        log=out / "magicmind.log",
        timeout_s=options.timeout_s,
        memory_bytes=options.memory_limit_bytes,
    )
    (out / f"{_ENTRY}.part").rename(out / _ENTRY)
    for name in ("model.onnx", "model.data", "order.json", "calibration.npz"):
        (out / name).unlink(missing_ok=True)
    return Artifact(
        backend="cambricon",
        kind="magicmind",
        entry=_ENTRY,
        toolkit=f"magicmind {version()}",
        inputs=inputs,
        outputs=outputs,
        precision=options.precision,
        meta={"config": told},
    )


def _refuse(options: CompileOptions) -> None:
    chip = pick_chip("cambricon", options.arch)
    known = {name: found for name, found in precisions(chip).items() if name in MODES}
    require_precision(f"cambricon {chip.name}", known, options)
    if options.keep_high:
        raise ConfigError("MagicMind cannot keep single nodes in fp32.")


def _holds_int64(model: ir.Model) -> bool:
    from autoglm.rewrite.facts import dtype_name

    values = (v for n in model.graph.all_nodes() for v in (*n.inputs, *n.outputs) if v is not None)
    return any(dtype_name(v) in ("int64", "uint64") for v in values)


def _samples(inputs: tuple[TensorInfo, ...], feeds: Any, out: Path) -> str:
    """The calibration feeds as one file: entries `<input number>.<sample number>`."""
    import numpy as np

    samples: list[Feeds] = list(feeds)
    if not samples:
        return ""
    arrays: dict[str, Any] = {
        f"{i}.{n}": np.ascontiguousarray(feed[info.name])
        for n, feed in enumerate(samples)
        for i, info in enumerate(inputs)
    }
    np.savez(out / "calibration.npz", **arrays)
    return str(out / "calibration.npz")
