"""One partition to a BModel: transform, calibrate, deploy, and read what memory it needs."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.backends.sophon.bmodel import Description, describe, matched
from autoglm.backends.sophon.capabilities import QUANTIZE, TARGETS, chip_of, precisions
from autoglm.backends.sophon.flags import flags
from autoglm.backends.sophon.model import Names, write_model
from autoglm.backends.sophon.toolkit import facts_of, forge, installed, package, variables
from autoglm.catalog.precision import require_precision
from autoglm.errors import CompileError, ExecutionError
from autoglm.spec import Artifact, CompileOptions, Feeds
from autoglm.toolchain import ending
from autoglm.toolchain.environment import Environment

if TYPE_CHECKING:
    import onnx_ir as ir

ENTRY = "model.bmodel"
_ALARM = -signal.SIGALRM
_RAISED = re.compile(r"[\w.]*(Error|Exception)\b")
_SAID = re.compile(r"UNREACHABLE|Assertion|error:|[Uu]nsupport|[Nn]ot (support|implement)|fault")
_TAIL = 4096
_WAIT_S = 120.0  # for the forge to start, above the tool's own time


def compile_model(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Compile into `out`; CompileError with the compiler's own words where it refuses."""
    from autoglm.rewrite.save import input_infos, output_infos

    chip = chip_of(options.arch)
    require_precision(f"sophon {chip.name}", precisions(chip), options)
    environment = installed()
    inputs = input_infos(model)
    target = TARGETS[chip.name]
    work = out / "work"
    work.mkdir(parents=True)
    try:
        names = write_model(model, work / "model.onnx")
        if options.keep_high:
            write_table(names, options.keep_high, work)
        if options.precision == "int8":
            write_calibration(options.calibration, [v.name for v in inputs], work)
        for argv in steps(target, options):
            run_tool(environment, target, argv, options, work)
        found = inspect(environment, target, work)
        outputs = matched(found, len(names.outputs))
        (work / ENTRY).replace(out / ENTRY)
    except CompileError as error:
        keep_log(error, out)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Artifact(
        backend="sophon",
        kind="bmodel",
        entry=ENTRY,
        toolkit=f"TPU-MLIR {environment.version}",
        inputs=inputs,
        outputs=output_infos(model),
        precision=options.precision,
        meta={
            "chip": chip.name,
            "runs_on": "simulator",
            "memory": found.memory,
            "inputs": list(names.inputs),
            "outputs": list(outputs),
            **facts_of(environment),
        },
    )


def steps(target: str, options: CompileOptions) -> list[list[str]]:
    """The tools to call, in order; every name and relative path is ours."""
    transform = ["model_transform.py", "--model_name", "model", "--model_def", "model.onnx"]
    transform += ["--mlir", "model.mlir"]
    quantize = QUANTIZE[options.precision]
    deploy = ["model_deploy.py", "--mlir", "model.mlir", "--quantize", quantize]
    deploy += ["--chip", target, "--model", ENTRY]
    deploy += [] if options.optimize else ["--opt", "1", "--disable_layer_group"]
    deploy += flags(options.settings)
    if options.keep_high:
        deploy += ["--quantize_table", "quantize_table"]
    if quantize != "INT8":
        return [transform, deploy]
    calibrate = ["run_calibration.py", "model.mlir", "--dataset", "calibration"]
    calibrate += ["--input_num", str(len(options.calibration)), "-o", "calibration_table"]
    return [transform, calibrate, [*deploy, "--calibration_table", "calibration_table"]]


def write_table(names: Names, keep_high: frozenset[str], work: Path) -> None:
    """The layers that stay in fp32, one a line; a name that TPU-MLIR fused away does no harm."""
    kept = {layer for layer, sources in names.layers.items() if keep_high & sources}
    lines = [f"{layer} F32\n" for layer in sorted(kept) if len(layer.split()) == 1]
    (work / "quantize_table").write_text("".join(lines), "utf-8")


def write_calibration(feeds: Sequence[Feeds], inputs: Sequence[str], work: Path) -> None:
    """One .npz a sample, under the names that the inputs have in there."""
    import numpy as np

    folder = work / "calibration"
    folder.mkdir()
    for index, feed in enumerate(feeds):
        arrays: Any = {f"in{i}": np.asarray(feed[name]) for i, name in enumerate(inputs)}
        np.savez(folder / f"{index:04d}.npz", **arrays)


def run_tool(
    environment: Environment, target: str, argv: list[str], options: CompileOptions, work: Path
) -> None:
    """One of TPU-MLIR's tools, in a fork of the process that has it imported."""
    log = work / f"{Path(argv[0]).stem}.log"
    tool = str(package(environment) / "python" / "tools" / argv[0])
    question = {
        "argv": [tool, *argv[1:]],
        "cwd": str(work),
        "log": str(log),
        "timeout_s": options.timeout_s,
    }
    service = forge(environment, target, options.threads, options.memory_limit_bytes)
    message = json.dumps(question).encode()
    try:
        answer = service.ask(message, timeout_s=options.timeout_s + _WAIT_S)
    except ExecutionError as error:
        raise CompileError("TPU-MLIR does not run: {cause}", cause=str(error)) from error
    status = int(json.loads(answer)["status"])
    if status != 0:
        raise failure(argv, status, log, options.timeout_s)


def failure(argv: Sequence[str], status: int, log: Path, timeout_s: float) -> CompileError:
    """The tool's end as an error: its own words, not the traceback around them."""
    whole = log.read_text("utf-8", "replace") if log.exists() else ""
    if status == _ALARM:
        cause = f"no end after {timeout_s:g} s"
    else:
        cause = ending(status)
    return CompileError(
        "{program} failed ({cause}): {line}",
        hint="The whole log is in {log}.",
        program=argv[0],
        cause=cause,
        line=telling(whole),
        log=str(log),
        argv=list(argv),
        tail=whole[-_TAIL:],
    )


def keep_log(error: CompileError, out: Path) -> None:
    """Move the log that the error names out of the work folder, which goes."""
    log = Path(str(error.facts.get("log", "")))
    if log.is_file():
        error.facts["log"] = str(log.replace(out / log.name))


def telling(text: str) -> str:
    """The line of a log that says most: the exception, or what `tpuc-opt` said last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("raise ", "assert ", "File "))]
    raised = [line for line in lines if _RAISED.match(line)]
    if raised and "[!Error]" not in raised[-1]:
        return raised[-1][:300]
    said = [line for line in lines if _SAID.search(line) and "[!Error]" not in line]
    return next(iter(said or raised[-1:] or lines[-1:]), "it printed nothing")[:300]


def inspect(environment: Environment, target: str, work: Path) -> Description:
    """What `model_tool --info` says of the BModel."""
    from autoglm.toolchain import run

    log = work / "info.txt"
    run(
        ["model_tool", "--info", ENTRY],
        log=log,
        cwd=work,
        timeout_s=60.0,
        env=variables(environment, target),
    )
    return describe(log.read_text("utf-8", "replace"))
