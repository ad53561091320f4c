"""What every engine must do alike: own results, named refusals, threads, moving, closing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from models import Builder, branch, chain, cnn, feeds, mlp, transformer

from autoglm.backends.null import Null
from autoglm.backends.onnxruntime import OnnxRuntime
from autoglm.backends.openvino import OpenVino
from autoglm.backends.reference import Reference
from autoglm.errors import BundleError, CompileError, ExecutionError, InputError
from autoglm.spec import Artifact, Backend, CompileOptions, RunOptions, TensorInfo

pytest.importorskip("openvino")

ENGINES = [OnnxRuntime(), OpenVino(), Reference()]
Compiled = tuple[Artifact, Path]


@pytest.fixture(params=ENGINES, ids=lambda plug: plug.name)
def plug(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Compiled]:
    def built(plug: Backend, model: ir.Model, **options: Any) -> Compiled:
        folder = tmp_path / f"artifact{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return plug.compile(model, CompileOptions(**options), folder), folder

    return built


def opened(plug: Backend, compiled: Compiled, **options: Any) -> Any:
    return plug.open(*compiled, RunOptions(**options))


@pytest.mark.parametrize("make", [mlp, cnn, transformer], ids=lambda make: make.__name__)
def test_fp32_agrees_with_the_reference_evaluator(plug: Any, build: Any, make: Any) -> None:
    model = make()
    golden = opened(Reference(), build(Reference(), model)).run(feeds(model))

    with opened(plug, build(plug, model)) as session:
        answer = session.run(feeds(model))

    assert list(answer) == [info.name for info in session.outputs]
    for name, expected in golden.items():
        scale = np.abs(expected).max()
        # A few hundred float32 additions per element: 1e-5 is ample, and 1e-4 is the gate.
        assert np.abs(answer[name] - expected).max() <= 1e-5 * scale


def test_results_stay_as_they_were_after_the_next_run(plug: Any, build: Any) -> None:
    model = mlp()
    first, second = feeds(model, seed=1), feeds(model, seed=2)

    with opened(plug, build(plug, model)) as session:
        early = session.run(first)
        kept = {name: value.copy() for name, value in early.items()}
        late = session.run(second)
        for value in late.values():
            value[...] = 7  # the caller may write into what it was given
        again = session.run(first)

    for name, value in kept.items():
        assert np.array_equal(early[name], value)
        assert np.array_equal(again[name], value)


def test_inputs_are_never_written_and_never_handed_back(plug: Any, build: Any) -> None:
    before = np.arange(64 * 512, dtype=np.float32).reshape(64, 512) - 1000
    readonly = before.copy()
    readonly.flags.writeable = False

    for kind, expected in (("Identity", before), ("Relu", np.maximum(before, 0))):
        with opened(plug, build(plug, chain(kind, shape=(64, 512)))) as session:
            for x in (before.copy(), readonly):
                (y,) = session.run({"x": x}).values()

                assert np.array_equal(y, expected)
                assert np.array_equal(x, before)
                assert not np.shares_memory(x, y)


def bad_feeds() -> dict[str, Any]:
    x = np.zeros((2, 4), np.float32)
    return {
        "missing": {},
        "unknown": {"x": x, "z": x},
        "only unknown": {"z": x},
        "dtype": {"x": x.astype(np.float64)},
        "half": {"x": x.astype(np.float16)},
        "order": {"x": x.astype(">f4")},
        "rank": {"x": x[0]},
        "size": {"x": x[:, :3]},
        "list": {"x": x.tolist()},
        "None": {"x": None},
        "text": {"x": np.full((2, 4), "a")},
        "object": {"x": x.astype(object)},
    }


@pytest.mark.parametrize("kind", bad_feeds())
@pytest.mark.parametrize("plug", [*ENGINES, Null()], ids=lambda plug: plug.name)
def test_bad_feeds_are_named(plug: Any, build: Any, kind: str) -> None:
    with opened(plug, build(plug, chain("Relu"))) as session:
        with pytest.raises(InputError) as caught:
            session.run(bad_feeds()[kind])

        good = session.run({"x": np.ones((2, 4), np.float32)})

    assert "'x'" in str(caught.value) or "'z'" in str(caught.value)
    assert next(iter(good.values())).shape == (2, 4)


def test_feeds_that_are_no_mapping_are_refused(plug: Any, build: Any) -> None:
    with opened(plug, build(plug, chain("Relu"))) as session, pytest.raises(InputError):
        session.run(3)


def test_strided_arrays_are_read_where_their_elements_are(plug: Any, build: Any) -> None:
    wide = np.arange(32, dtype=np.float32).reshape(4, 8)
    model = chain("Neg", shape=(2, 4))

    with opened(plug, build(plug, model)) as session:
        for x in (wide[::2, ::2], wide[1::-1, ::2], np.asfortranarray(wide[:2, :4])):
            (y,) = session.run({"x": x}).values()
            assert np.array_equal(y, -x)


def test_0_d_tensors_stay_0_d_and_numpy_scalars_are_taken(plug: Any, build: Any) -> None:
    with opened(plug, build(plug, chain("Neg", shape=()))) as session:
        for x in (np.array(2.0, np.float32), np.float32(2.0)):
            (y,) = session.run({"x": x}).values()
            assert y.shape == ()
            assert y == -2.0
        with pytest.raises(InputError):
            session.run({"x": np.ones(1, np.float32)})


def test_sizes_may_change_from_run_to_run(plug: Any, build: Any) -> None:
    with opened(plug, build(plug, chain("Neg", shape=("n", 4)))) as session:
        for n in (3, 1, 3, 0, 20_000, 3, 20_000):
            x = np.random.default_rng(n).standard_normal((n, 4)).astype(np.float32)
            (y,) = session.run({"x": x}).values()
            assert np.array_equal(y, -x)


def test_nan_and_infinities_pass_unchanged(plug: Any, build: Any) -> None:
    x = np.array([[np.nan, np.inf, -np.inf, -0.0]] * 2, np.float32)

    with opened(plug, build(plug, chain("Identity"))) as session:
        (y,) = session.run({"x": x}).values()

    assert np.array_equal(x, y, equal_nan=True)
    assert np.array_equal(np.signbit(x[:, 3]), np.signbit(y[:, 3]))


def test_an_artifact_runs_from_another_folder(plug: Any, build: Any, tmp_path: Path) -> None:
    model = mlp()
    artifact, folder = build(plug, model)
    moved = tmp_path / "elsewhere" / "deep"
    moved.parent.mkdir()
    shutil.move(folder, moved)

    with opened(plug, (artifact, moved)) as session:
        session.run(feeds(model))

    for path in moved.rglob("*"):
        assert str(folder).encode() not in path.read_bytes()
    assert str(tmp_path) not in json.dumps(dataclasses.asdict(artifact))


def test_compile_leaves_only_what_open_needs(plug: Any, build: Any) -> None:
    _, folder = build(plug, mlp())

    assert [path.name for path in folder.iterdir() if path.is_dir()] == []


def test_compile_leaves_the_model_as_it_was(plug: Any, build: Any) -> None:
    from autoglm.rewrite.facts import model_digest

    model = mlp()
    before = model_digest(model)

    build(plug, model)

    assert model_digest(model) == before
    assert all(
        v.const_value is not None and not isinstance(v.const_value, ir.ExternalTensor)
        for v in model.graph.initializers.values()
    )


def test_two_sessions_of_one_artifact_do_not_meet(plug: Any, build: Any) -> None:
    model = mlp()
    compiled = build(plug, model)
    one, two = opened(plug, compiled), opened(plug, compiled)

    expected = one.run(feeds(model))
    one.close()

    for name, value in two.run(feeds(model)).items():
        assert np.array_equal(value, expected[name])


def test_close_twice_then_run_is_an_error(plug: Any, build: Any) -> None:
    model = mlp()
    session = opened(plug, build(plug, model))

    session.close()
    session.close()

    with pytest.raises(ExecutionError, match="closed"):
        session.run(feeds(model))


def test_threads_get_their_own_answers(plug: Any, build: Any) -> None:
    model = mlp(batch="n")
    given = [feeds(model, seed=seed, symbols=1 + seed % 3) for seed in range(24)]

    with opened(plug, build(plug, model), threads=1) as session:
        alone = [session.run(f) for f in given]
        with ThreadPoolExecutor(6) as pool:
            together = list(pool.map(session.run, given))

    for expected, found in zip(alone, together, strict=True):
        for name in expected:
            assert np.array_equal(expected[name], found[name])


def test_an_unknown_operator_is_a_compile_error_that_names_it(plug: Any, build: Any) -> None:
    b = Builder()
    y = b.op("vendor.example::Strange", b.input("x", (2, 4)))
    b.nodes.append(b.nodes.pop())
    model = b.proto(y, check=False)
    model.graph.output[0].type.CopyFrom(model.graph.input[0].type)

    with pytest.raises(CompileError, match="Strange"):
        build(plug, ir.from_proto(model))


def test_a_damaged_artifact_is_a_bundle_error(plug: Any, build: Any) -> None:
    artifact, folder = build(plug, mlp())
    (folder / artifact.entry).write_bytes(b"<html>not a model</html>")

    with pytest.raises(BundleError):
        opened(plug, (artifact, folder))


def test_outputs_that_are_inputs_constants_or_one_value_twice(plug: Any, build: Any) -> None:
    b = Builder()
    x = b.input("x", (2, 4))
    b.input("unused", (3,))
    kept = b.op("Identity", b.constant(np.arange(3.0)), name="constant")
    same = b.op("Relu", x, name="relu")
    copy = b.op("Identity", same, name="copy")
    model = b.model(kept, same, copy)
    value = np.array([[-1, 2, -3, 4]] * 2, np.float32)

    with opened(plug, build(plug, model)) as session:
        answer = session.run({"x": value, "unused": np.zeros(3, np.float32)})

    assert np.array_equal(answer[kept], np.arange(3, dtype=np.float32))
    assert np.array_equal(answer[same], np.maximum(value, 0))
    assert np.array_equal(answer[copy], np.maximum(value, 0))


def test_an_if_takes_the_right_branch(plug: Any, build: Any) -> None:
    model = branch()
    golden = opened(Reference(), build(Reference(), model))

    with opened(plug, build(plug, model)) as session:
        for go in (True, False):
            given = {"x": feeds(model)["x"], "go": np.array(go)}
            for name, expected in golden.run(given).items():
                np.testing.assert_allclose(session.run(given)[name], expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16", "int32", "int64"])
def test_integers_come_back_in_their_dtype(plug: Any, build: Any, dtype: str) -> None:
    model = chain("Identity", shape=("n",), dtype=dtype)
    x = np.array([0, 1, 1, 0, 1]).astype(dtype)

    with opened(plug, build(plug, model)) as session:
        (y,) = session.run({"x": x}).values()

    assert y.dtype == x.dtype
    assert np.array_equal(x, y)


def test_plain_facts_of_a_backend_need_no_engine(plug: Any) -> None:
    assert plug.version()
    assert [device.backend for device in plug.probe()][:1] == [plug.name]
    table = plug.capabilities()
    assert table.backend == plug.name
    for name, support in table.precisions.items():
        assert support.ok or support.reason, name
    assert table.precisions["fp32"].ok


def test_null_answers_zeros_of_the_fed_sizes(build: Any) -> None:
    model = mlp(batch="n")
    x = feeds(model, symbols=5)

    with opened(Null(), build(Null(), model, precision="int8")) as session:
        (y,) = session.run(x).values()

    assert y.shape == (5, 16)
    assert not y.any()
    assert Null().capabilities().table["Anything"].dtypes is None


def test_null_knows_text_and_sequences(tmp_path: Path) -> None:
    outputs = (
        TensorInfo("text", "string", (2,)),
        TensorInfo("list", "float32", None, "sequence"),
        TensorInfo("maybe", "float32", None, "optional"),
    )
    artifact = Artifact("null", "null", "", "null 1", (), outputs)

    answer = Null().open(artifact, tmp_path, RunOptions()).run({})

    assert answer["text"].tolist() == ["", ""]
    assert answer["list"] == []
    assert answer["maybe"] is None
