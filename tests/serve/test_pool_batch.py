"""`batch` in model.toml says that the first axis is the batch; whether rows join is proved."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autoglm import api
from autoglm.serve.core import Request
from autoglm.serve.pool import Pool, repository
from autoglm.spec import Dim

FLOAT = TensorProto.FLOAT
W = np.random.default_rng(3).standard_normal((4, 4)).astype(np.float32)


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


def compiled(folder: Path, nodes: list[Any], first: Dim, out: Dim, model_toml: str) -> Path:
    """x [first, 4] -> y [out, 4] at folder/1."""
    folder.mkdir(parents=True)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [first, 4])],
        [helper.make_tensor_value_info("y", FLOAT, [out, 4])],
        [numpy_helper.from_array(W, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx")
    api.compile(folder / "m.onnx", folder / "1", backend="onnxruntime", passes={"fold": False})
    (folder / "model.toml").write_text(model_toml, "utf-8")
    return folder


def dense() -> list[Any]:
    return [helper.make_node("MatMul", ["x", "w"], ["y"])]


def dynamic_quantised() -> list[Any]:
    """As quantize_dynamic writes it: the scale is that of the whole tensor."""
    return [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DynamicQuantizeLinear", ["w"], ["wq", "wscale", "wzero"]),
        helper.make_node("MatMulInteger", ["q", "wq", "zero", "wzero"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["real"], to=FLOAT),
        helper.make_node("Mul", ["scale", "wscale"], ["both"]),
        helper.make_node("Mul", ["real", "both"], ["y"]),
    ]


async def batches(folder: Path) -> tuple[int, bool, list[np.ndarray]]:
    """Engine runs of eight requests at once, what the pool says of it, and the answers."""
    pool = Pool(repository([f"m={folder}"]))
    await pool.start()
    assert pool.model("m").state == "ready", pool.model("m").reason
    batcher = pool.served("m").batchers[0]
    before = batcher.stats.batches
    rows = [np.full((1, 4), i, np.float32) for i in range(8)]
    answers = await asyncio.gather(*(pool.infer(Request("m", {"x": row})) for row in rows))
    (told,) = pool.details()
    made = batcher.stats.batches - before
    await pool.close()
    return made, told["engines"][0]["joins"], [a["y"] for a in answers]


@pytest.mark.parametrize(
    ("out", "model_toml", "joins"),
    [
        ("n", "", True),
        ("rows_out", "", False),  # another name may be another axis
        ("rows_out", "batch = true\n", True),
        ("n", "batch = false\n", False),
    ],
)
def test_a_renamed_axis_is_the_batch_where_the_model_file_says_so(
    tmp_path: Path, out: Dim, model_toml: str, joins: bool
) -> None:
    folder = compiled(tmp_path / "m", dense(), "n", out, model_toml)

    async def work() -> None:
        made, said, answers = await batches(folder)
        assert said is joins
        assert made == 1 if joins else made == 8
        for number, answer in enumerate(answers):
            np.testing.assert_allclose(answer, np.full((1, 4), number) @ W, rtol=1e-5, atol=1e-5)

    run(work())


def test_what_quantises_by_the_whole_tensor_runs_alone_whatever_is_said(tmp_path: Path) -> None:
    folder = compiled(tmp_path / "m", dynamic_quantised(), "n", "n", "batch = true\n")

    async def work() -> None:
        made, said, _ = await batches(folder)
        assert (made, said) == (8, False)

    run(work())
