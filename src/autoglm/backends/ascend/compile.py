"""Run ATC on one partition, or keep the ONNX file for ONNX Runtime's CANN provider."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm import toolchain
from autoglm.backends.ascend.capabilities import document, precisions
from autoglm.backends.ascend.flags import command, flags
from autoglm.backends.ascend.toolkit import missing, version
from autoglm.catalog.chips import chips, plain
from autoglm.catalog.documented import pick_chip
from autoglm.catalog.precision import require_precision
from autoglm.errors import CompileError, ConfigError
from autoglm.spec import Artifact, CompileOptions, Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

_ENTRY = "model.om"
ENGINES = ("atc", "onnxruntime")


def compile_model(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Write `model.om` by ATC; `engine = onnxruntime` keeps the ONNX file instead."""
    engine = options.settings.get("engine", ENGINES[0])
    if engine not in ENGINES:
        raise ConfigError(
            "Setting engine of backend ascend is {known}; found {found!r}.",
            known=" or ".join(ENGINES),
            found=engine,
        )
    if options.keep_high:
        raise ConfigError(
            "ATC keeps single operators in fp32 by a file: give settings keep_dtype, not nodes."
        )
    if engine == "onnxruntime":
        from autoglm.backends.ascend.provider import keep

        return keep(model, options, out)
    return _by_atc(model, options, out)


def _by_atc(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    from autoglm.rewrite.lower import lower_opset
    from autoglm.rewrite.save import input_infos, output_infos, save_onnx

    _refuse(options)
    inputs, outputs = input_infos(model), output_infos(model)
    told = flags(inputs, options)
    if shutil.which("atc") is None:
        raise missing("compiler atc")
    soc = soc_version(options.arch, _here())
    work = out / "work"
    work.mkdir()
    lowered = lower_opset(model, document().newest)
    source = save_onnx(lowered, work / "model.onnx", alignment=options.memory_alignment)
    argv = command(str(source), str(work / "model"), soc, told)
    toolchain.run(
        argv,
        log=out / "atc.log",
        timeout_s=options.timeout_s,
        memory_bytes=options.memory_limit_bytes,
        cwd=work,
    )
    _keep_result(work, out, told)
    return Artifact(
        backend="ascend",
        kind="om",
        entry=_ENTRY,
        toolkit=f"CANN {version()}",
        inputs=inputs,
        outputs=outputs,
        precision=options.precision,
        meta={"soc_version": soc, "flags": told},
    )


def _keep_result(work: Path, out: Path, told: dict[str, str]) -> None:
    # The name gains "_<os>_<arch>" where the model holds host code.
    found = sorted(work.glob("model*.om"))
    if not found:
        raise CompileError(
            "atc ended well and wrote no .om file.",
            hint="The whole log is in {log}.",
            log=str(out / "atc.log"),
        )
    found[0].rename(out / _ENTRY)
    if (work / "weight").is_dir():  # --external_weight: beside the .om
        (work / "weight").rename(out / "weight")
    shutil.rmtree(work, ignore_errors=True)


def _refuse(options: CompileOptions) -> None:
    chip = pick_chip("ascend", options.arch)
    require_precision(f"ascend {chip.name}", precisions(chip), options)


def soc_version(arch: str, here: Sequence[Device] = ()) -> str:
    """What --soc_version is told: the chip asked for, else the one that is here."""
    name = arch or next((d.name for d in here if d.present), "")
    if not name:
        raise ConfigError(
            "ATC needs the chip that the model will run on, and none is here.",
            hint="Give arch, as npu-smi info names the chip: Ascend310P3, Ascend910B4.",
        )
    text = name.replace(" ", "")
    soc = text if text.lower().startswith("ascend") else f"Ascend{text}"
    family = [c.name for c in chips().values() if c.backend == "ascend" and _of(c.name, soc)]
    exact = any(plain(name) == plain(soc) for name in family)
    if len(family) > 1 and not (exact and not soc[-1].isalpha()):
        raise ConfigError(
            "{arch} names a family of chips, and ATC compiles for one: {family}.",
            hint="Name the chip as npu-smi info does.",
            arch=arch,
            family=", ".join(n.replace(" ", "") for n in family if plain(n) != plain(soc)),
        )
    return soc


def _of(name: str, soc: str) -> bool:
    return plain(name).startswith(plain(soc))


def _here() -> Sequence[Device]:
    from autoglm.backends.ascend.probe import list_devices

    return list_devices()
