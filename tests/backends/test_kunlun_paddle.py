"""Kunlun with Paddle: its own environment, its own worker, answers against ONNX Runtime."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from models import Builder, cnn, decoder, feeds, mlp, transformer

from autoglm.backends.kunlun import Kunlun
from autoglm.backends.kunlun.client import client
from autoglm.errors import BundleError, CompileError, ExecutionError, LimitError
from autoglm.spec import CompileOptions, RunOptions
from autoglm.testing.conformance import core_cases, dishonest, sample

pytestmark = pytest.mark.toolchain("paddle")
Open = Callable[..., Any]


@pytest.fixture
def open_model(tmp_path: Path) -> Open:
    def opened(model: ir.Model, *, run: RunOptions | None = None, **options: Any) -> Any:
        folder = tmp_path / f"artifact{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        artifact = Kunlun().compile(model, CompileOptions(**options), folder)
        return Kunlun().open(artifact, folder, run or RunOptions())

    return opened


def reference(model: ir.Model, given: Any, tmp_path: Path) -> Any:
    import onnxruntime

    path = tmp_path / "reference.onnx"
    ir.save(model, path)
    names = [o.name for o in model.graph.outputs]
    return dict(zip(names, onnxruntime.InferenceSession(path).run(names, given), strict=True))


@pytest.mark.parametrize("make", [mlp, cnn, transformer, decoder])
def test_the_tiny_models_answer_as_onnx_runtime_does(
    make: Callable[[], ir.Model], open_model: Open, tmp_path: Path
) -> None:
    model = make()
    given = feeds(model)
    wanted = reference(model, given, tmp_path)

    with open_model(model) as session:
        found = session.run(given)

    for name, array in wanted.items():
        assert np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()


def test_one_program_takes_every_batch(open_model: Open, tmp_path: Path) -> None:
    model = cnn(batch="n")
    with open_model(model) as session:
        for batch in (1, 3, 2):
            given = {"image": np.full((batch, 3, 8, 8), 0.5, np.float32)}
            (found,) = session.run(given).values()
            (wanted,) = reference(model, given, tmp_path).values()
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).max() <= 1e-5


def test_a_node_that_paddle_does_not_take_is_named(open_model: Open) -> None:
    b = Builder()
    x = b.input("x", [2, 3])
    model = b.model(b.op("RegexFullMatch", b.input("s", [2], np.object_), name="odd", pattern="a"),
                    b.op("Relu", x), check=False)  # fmt: skip
    with pytest.raises(CompileError, match=r"s.*string"):
        open_model(model)

    b = Builder()
    boxes, scores = b.input("boxes", [1, 2, 4]), b.input("scores", [1, 1, 2])
    with pytest.raises(CompileError, match="'nms': NonMaxSuppression"):
        open_model(b.model(b.op("NonMaxSuppression", boxes, scores, name="nms")))


def test_inputs_that_nothing_reads_and_constant_outputs_are_no_obstacle(open_model: Open) -> None:
    b = Builder()
    b.input("unread", [2])
    x = b.input("x", [2, 3])
    model = b.model(b.op("Relu", x, name="r"), b.op("Shape", x, name="s"))
    given = {"unread": np.zeros(2, np.float32), "x": np.full((2, 3), -1, np.float32)}

    found = open_model(model).run(given)

    assert found["r_out"].tolist() == [[0.0] * 3] * 2
    assert found["s_out"].tolist() == [2, 3]


def test_bfloat16_and_int16_pass_the_edge(open_model: Open) -> None:
    for dtype in (ml_dtypes.bfloat16, np.int16):
        b = Builder()
        model = b.model(b.op("Neg" if dtype is np.int16 else "Identity", b.input("x", [3], dtype)))
        x = np.asarray([1, -2, 3], dtype)
        (found,) = open_model(model).run({"x": x}).values()
        assert found.dtype == x.dtype
        assert np.array_equal(found, -x if dtype is np.int16 else x)


def test_a_crash_is_an_error_and_the_next_run_starts_the_worker_again(open_model: Open) -> None:
    model = mlp()
    session = open_model(model)
    before = session.run(feeds(model))
    child = client().service._child
    assert child is not None
    os.kill(child.pid, signal.SIGSEGV)
    child.wait()

    with pytest.raises(ExecutionError):
        session.run(feeds(model))
    after = session.run(feeds(model))

    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_a_late_compile_is_ended_and_says_the_limit(open_model: Open) -> None:
    with pytest.raises(CompileError, match=r"0\.01 s"):
        open_model(cnn(size=64, channels=64), timeout_s=0.01)
    (found,) = open_model(mlp()).run(feeds(mlp())).values()
    assert np.isfinite(found).all()


def test_a_damaged_artifact_is_refused(tmp_path: Path) -> None:
    artifact = Kunlun().compile(mlp(), CompileOptions(), tmp_path)
    (tmp_path / artifact.entry).write_text("{")
    with pytest.raises(BundleError, match="does not load"):
        Kunlun().open(artifact, tmp_path, RunOptions())
    (tmp_path / artifact.entry).unlink()
    with pytest.raises(BundleError, match="missing"):
        Kunlun().open(artifact, tmp_path, RunOptions())


def test_nothing_but_the_artifact_is_left_behind(tmp_path: Path) -> None:
    Kunlun().compile(mlp(), CompileOptions(), tmp_path)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.pdiparams"]


def test_the_table_says_what_paddle_does() -> None:
    wrong = [f"{c.name}: {t}" for c in sample(core_cases(), 7) if (t := dishonest(Kunlun(), c))]

    assert not wrong, "\n".join(wrong)


def test_an_epsilon_that_paddles_own_operators_refuse_is_spelled_out(
    open_model: Open, tmp_path: Path
) -> None:
    b = Builder()
    x = b.input("x", [2, 3, 4])
    normal = b.op("LayerNormalization", x, b.weight(4), b.weight(4), epsilon=0.5)
    statistics = [b.weight(3), b.weight(3), b.weight(3), b.constant([0.5, 1.0, 2.0])]
    model = b.model(normal, b.op("BatchNormalization", x, *statistics, epsilon=0.5))
    given = feeds(model)

    found = open_model(model).run(given)

    for name, array in reference(model, given, tmp_path).items():
        assert np.abs(found[name] - array).max() <= 1e-5


GIB = 1 << 30


def test_a_run_over_the_memory_limit_says_so_and_others_go_on(open_model: Open) -> None:
    b = Builder()
    wide = b.op("Tile", b.input("x", [1024, 1024]), b.input("times", [2], np.int64))
    model = b.model(b.op("ReduceSum", wide, keepdims=0))
    x = np.ones((1024, 1024), np.float32)
    limited = RunOptions(memory_limit_bytes=16 * GIB)

    with open_model(model, run=limited, memory_limit_bytes=16 * GIB) as session:
        with pytest.raises(LimitError, match="limit of 16384 MiB") as caught:
            session.run({"x": x, "times": np.array([100, 100])})
        (found,) = session.run({"x": x, "times": np.array([2, 1])}).values()

    assert found == 2 << 20
    assert "--memory-limit-bytes" in caught.value.hint


def test_a_limit_that_paddle_does_not_start_in_says_so(open_model: Open) -> None:
    with pytest.raises(LimitError, match="limit of 256 MiB"):
        open_model(mlp(), memory_limit_bytes=GIB // 4)


def test_a_layer_norm_over_two_axes_and_one_of_bfloat16(open_model: Open, tmp_path: Path) -> None:
    b = Builder()
    y = b.op("LayerNormalization", b.input("x", [2, 3, 4]), b.weight(3, 4), b.weight(3, 4), axis=1)
    model = b.model(y)
    given = feeds(model)
    low = Builder(dtype=ml_dtypes.bfloat16)
    half = low.op("LayerNormalization", low.input("x", [2, 3, 4]), low.weight(4), low.weight(4))

    (found,) = open_model(model).run(given).values()
    (coarse,) = open_model(low.model(half)).run({"x": given["x"].astype("bfloat16")}).values()

    (wanted,) = reference(model, given, tmp_path).values()
    assert np.abs(found - wanted).max() <= 1e-5
    assert np.isfinite(coarse.astype(np.float32)).all()
