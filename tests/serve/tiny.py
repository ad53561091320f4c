"""Small bundles and a running server for the gateway's tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import autoglm
from autoglm.serve.server import ServeOptions, Server

WIDTH = 4
WEIGHTS = np.random.default_rng(5).standard_normal((WIDTH, 3)).astype(np.float32)


def dense_bundle(folder: Path) -> Path:
    """`y = x @ WEIGHTS`, any number of rows, compiled for ONNX Runtime."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "dense.onnx")
    autoglm.compile(folder / "dense.onnx", folder / "dense", backend="onnxruntime")
    return folder / "dense"


@contextmanager
def running(options: ServeOptions) -> Iterator[Server]:
    """A server on a loop of its own thread."""
    ready, box = threading.Event(), dict[str, Any]()

    async def main() -> None:
        box["loop"], box["stop"] = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with Server(options) as server:
                box["server"] = server
                ready.set()
                await box["stop"].wait()
        except BaseException as error:
            box["error"] = error
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(60)
    if "error" in box:
        raise box["error"]
    try:
        yield box["server"]
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(60)
        assert not thread.is_alive()
