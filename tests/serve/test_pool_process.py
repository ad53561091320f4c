"""An engine in a process of its own: the same answers, and its death takes nobody along."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
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

from autoglm.errors import ExecutionError, InputError, LimitError
from autoglm.runtime.watchdog import resident_bytes
from autoglm.serve.core import Request
from autoglm.serve.pool import Pool, repository
from autoglm.serve.pool.process import IsolatedSession
from autoglm.serve.pool.shared import LINE, Shared
from autoglm.serve.pool.wire import decode, encode


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await work

    asyncio.run(bounded())


def crossed(
    values: dict[str, Any], facts: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any], int]:
    shared = Shared()
    try:
        return decode(encode(values, shared, facts=facts), shared, copy=True)
    finally:
        shared.close()


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int8, np.uint16, np.int64, np.bool_]),
        arrays.array_shapes(min_dims=0, min_side=0, max_dims=4),
    )
)
def test_a_tensor_crosses_unchanged(array: np.ndarray) -> None:
    values, facts, end = crossed({"a": array, "b": array.T}, {"n": 1})

    assert facts == {"n": 1}
    assert end >= 2 * array.nbytes
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

    values, _, _ = crossed(said)

    assert values["text"].tolist() == said["text"].tolist()
    assert [v.shape for v in values["list"]] == [(2, 4), (4,)]
    assert values["absent"] is None
    assert values["half"].dtype == half.dtype
    assert values["half"].tolist() == half.tolist()
    assert values["scalar"].shape == ()


def test_something_else_than_a_text_is_refused() -> None:
    with pytest.raises(InputError, match="Expected texts"):
        crossed({"x": np.array([object()], dtype=object)})


def test_an_answer_lies_behind_its_question_where_an_output_may_be_an_input() -> None:
    shared = Shared()
    first = np.arange(6, dtype=np.float32)
    feeds, _, end = decode(encode({"x": first}, shared), shared, copy=False)

    answer = encode({"y": feeds["x"][::-1], "z": feeds["x"]}, shared, begin=end)

    values, _, _ = decode(answer, shared, copy=True)
    assert values["y"].tolist() == first[::-1].tolist()
    assert values["z"].tolist() == first.tolist()
    assert feeds["x"].ctypes.data % LINE == 0
    shared.close()


def test_one_side_grows_what_both_see_and_a_large_tensor_is_given_back() -> None:
    near, before = Shared(), resident_bytes()
    far = Shared(os.dup(near.fd))
    for size in (10, 100_000, 40_000_000, 10):
        array = np.full(size, 3.0, np.float32)
        values, _, _ = decode(encode({"x": array}, near), far, copy=True)
        assert np.array_equal(values["x"], array)
        back, _, _ = decode(encode({"x": array}, far), near, copy=True)
        assert np.array_equal(back["x"], array)
    del values, back, array
    near.trim()

    held = os.fstat(near.fd).st_blocks * 512
    near.close()
    far.close()
    assert held <= 1 << 26
    assert resident_bytes() - before < 200 << 20


def test_what_was_given_back_is_reserved_again_and_a_large_one_takes_what_it_needs() -> None:
    near, size = Shared(), 100 << 20
    far = Shared(os.dup(near.fd))

    def held() -> int:
        return os.fstat(near.fd).st_blocks * 512

    near.view(size)
    taken = held()
    for side in (near, far):
        near.trim()
        assert held() <= 1 << 26
        side.view(size)
        assert held() >= size
    far.view(size + (8 << 20))  # and what only the other side has seen is given back as well
    near.trim()
    kept = held()
    near.close()
    far.close()
    assert taken <= size + (2 << 20)
    assert kept <= 1 << 26


def test_no_memory_for_a_tensor_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(LimitError, match="No space left"):
        crossed({"x": X})


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


OWNER = """
import sys, time
import numpy as np
from pathlib import Path
from autoglm.serve.pool.process import IsolatedSession
session = IsolatedSession(Path(sys.argv[1]))
large = np.ones((50_000, 4), np.float32)
while True:
    session.run({"x": large})
    print(session.pid, flush=True)
"""


def segments() -> set[str]:
    """Files of shared memory that have a name."""
    return set(os.listdir("/dev/shm"))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_nothing_is_left_of_either_side_when_the_server_is_killed(tmp_path: Path) -> None:
    folder, before = bundle(tmp_path / "m", 3.0), segments()
    argv = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        assert alive(child)
        owner.kill()
        owner.wait(60)

    end = time.monotonic() + 60
    while alive(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(child)
    assert segments() <= before


def test_nothing_is_left_of_children_that_are_killed(tmp_path: Path) -> None:
    large, named = np.ones((50_000, 4), np.float32), segments()
    with IsolatedSession(bundle(tmp_path / "m", 3.0)) as session:
        session.run({"x": large})
        open_before = len(os.listdir("/proc/self/fd"))
        for _ in range(2):
            os.kill(session.pid, signal.SIGKILL)
            with pytest.raises(ExecutionError):
                session.run({"x": X})
            (answer,) = session.run({"x": large}).values()
            assert np.array_equal(answer, large * 3)

        assert len(os.listdir("/proc/self/fd")) == open_before
        assert segments() <= named
