"""One partition -> Paddle's own files, written by the worker."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.backends.kunlun.calls import write_calls
from autoglm.backends.kunlun.capabilities import PRECISIONS
from autoglm.backends.kunlun.client import Refusal, client
from autoglm.backends.kunlun.original import original
from autoglm.catalog.precision import require_precision
from autoglm.errors import CompileError, ExecutionError
from autoglm.rewrite.save import input_infos, output_infos
from autoglm.spec import Artifact, CompileOptions

if TYPE_CHECKING:
    import onnx_ir as ir

_MODEL, _PARAMS = "model.json", "model.pdiparams"


def compile_model(model: ir.Model, options: CompileOptions, out: Path) -> Artifact:
    """Compile into `out`; CompileError names the node that Paddle does not take."""
    require_precision("kunlun", PRECISIONS, options)
    worker = client(
        options.memory_limit_bytes
    )  # first: without the environment nothing else matters
    found = original(model)
    if found is not None:
        return found.keep(model, out, _toolkit(worker.environment.version), options)
    feeds = _build(model, options, out)
    return Artifact(
        backend="kunlun",
        kind="paddle",
        entry=_MODEL,
        toolkit=_toolkit(worker.environment.version),
        inputs=input_infos(model),
        outputs=output_infos(model),
        meta={
            "params": _PARAMS if (out / _PARAMS).is_file() else "",
            "feeds": feeds,
            "threads": options.threads,
            "optimize": options.optimize,
        },
    )


def _toolkit(version: str) -> str:
    return f"paddle {version}"


def _build(model: ir.Model, options: CompileOptions, out: Path) -> list[str]:
    from autoglm.rewrite.program import prepared

    work = Path(tempfile.mkdtemp(prefix="paddle-", dir=out))
    try:
        write_calls(prepared(model), work)
        question = {"verb": "build", "calls": str(work), "out": str(out)}
        answer, _ = client(options.memory_limit_bytes).ask(question, timeout_s=options.timeout_s)
    except Refusal as refusal:
        if not refusal.node:
            raise CompileError("Paddle: {cause}.", cause=refusal.reason) from refusal
        raise CompileError(
            "Node {node!r}: {op}: {cause}.",
            node=refusal.node,
            op=refusal.op,
            cause=refusal.reason,
        ) from refusal
    except ExecutionError as lost:
        raise CompileError("Paddle did not compile the model: {cause}", cause=str(lost)) from lost
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return [str(name) for name in answer["feeds"]]
