"""An engine in a process of its own: the same answers, and its death takes nobody along."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from served_bundles import X, bundle

from autoglm.errors import InputError
from autoglm.serve.core import Request
from autoglm.serve.pool import Pool, repository
from autoglm.serve.pool.process import IsolatedSession
from autoglm.serve.pool.wire import decode, encode


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await work

    asyncio.run(bounded())


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int8, np.uint16, np.int64, np.bool_]),
        arrays.array_shapes(min_dims=0, min_side=0, max_dims=4),
    )
)
def test_a_tensor_crosses_unchanged(array: np.ndarray) -> None:
    values, facts = decode(encode({"a": array, "b": array.T}, {"n": 1}))

    assert facts == {"n": 1}
    assert values["a"].dtype == array.dtype
    assert values["a"].shape == array.shape
    assert np.array_equal(values["a"], array, equal_nan=array.dtype.kind == "f")
    assert np.array_equal(values["b"], array.T, equal_nan=array.dtype.kind == "f")


def test_texts_sequences_absent_values_and_small_floats_cross_too() -> None:
    half = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    said = {
        "text": np.array([["a", "你好"], ["", "\n"]], dtype=object),
        "list": [X, X[0]],
        "absent": None,
        "half": half,
        "scalar": np.float32(3),
    }

    values, _ = decode(encode(said))

    assert values["text"].tolist() == said["text"].tolist()
    assert [v.shape for v in values["list"]] == [(2, 4), (4,)]
    assert values["absent"] is None
    assert values["half"].dtype == half.dtype
    assert values["half"].tolist() == half.tolist()
    assert values["scalar"].shape == ()


def test_something_else_than_a_text_is_refused() -> None:
    with pytest.raises(InputError, match="Expected texts"):
        encode({"x": np.array([object()], dtype=object)})


def test_the_child_answers_as_the_bundle_and_its_errors_are_its_own(tmp_path: Path) -> None:
    with IsolatedSession(bundle(tmp_path / "m", 3.0)) as session:
        (answer,) = session.run({"x": X}).values()

        assert np.array_equal(answer, X * 3)
        assert session.engines == ("numpy",)
        assert session.pid != os.getpid()
        with pytest.raises(InputError):
            session.run({"nothing": X})
        (answer,) = session.run({"x": X}).values()
        assert np.array_equal(answer, X * 3)


def test_a_killed_engine_costs_no_request(tmp_path: Path) -> None:
    bundle(tmp_path / "m", 3.0)

    async def work() -> None:
        pool = Pool(repository([str(tmp_path / "m")], process=True))
        await pool.start()
        (engine,) = pool.served("m").engines
        answers: list[float] = []

        async def ask() -> None:
            for _ in range(20):
                (answer,) = (await pool.infer(Request("m", {"x": X}))).values()
                answers.append(float(answer[0, 1]))

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        while len(answers) < 10:
            await asyncio.sleep(0.001)
        first = engine._session.pid
        os.kill(first, signal.SIGKILL)
        await asyncio.gather(*asking)

        assert answers == [3.0] * 80
        assert engine._session.pid != first
        await pool.close()
        with pytest.raises(ProcessLookupError):
            os.kill(engine._session.pid, 0)

    run(work())


def test_a_killed_engine_beside_another_is_stood_in_for(tmp_path: Path) -> None:
    bundle(tmp_path / "r/m/1", 3.0)
    (tmp_path / "r/m/model.toml").write_text("[[engines]]\nprocess = true\n[[engines]]\n", "utf-8")

    async def work() -> None:
        pool = Pool(repository([str(tmp_path / "r")]))
        await pool.start()
        child, _ = pool.served("m").engines
        child.row_s = child.best_row_s = 0.0  # always the first choice
        os.kill(child._session.pid, signal.SIGKILL)

        (answer,) = (await pool.infer(Request("m", {"x": X}))).values()

        assert np.array_equal(answer, X * 3)
        await pool.close()

    run(work())
