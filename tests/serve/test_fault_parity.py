"""The same fault has the same code over every protocol, and each wire's status is the table's."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from onnx import TensorProto, helper
from serve.faults import (
    FAULTS,
    GOOD,
    GRPC,
    MAX_BYTES,
    MAX_QUEUE,
    REST,
    ROW,
    TWO,
    V2_GRPC,
    WIDTH,
    WIRES,
    Ask,
    Fault,
    counts,
    data,
    typed,
    x,
)
from serve.mosquitto import BINARY, MISSING, Mosquitto
from serve.tiny import dense_bundle, running
from serve.wires import Client, Outcome
from served_bundles import corrupt

import autoglm
from autoglm.errors import TABLE
from autoglm.serve.batch import BatchLimits
from autoglm.serve.guard import GuardOptions, Limit
from autoglm.serve.guard.keys import add_key
from autoglm.serve.options import TransportOptions
from autoglm.serve.pool.engine import Quarantine
from autoglm.serve.server import ServeOptions, Server

pytestmark = pytest.mark.skipif(BINARY is None, reason=MISSING)
ALL = {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0"}


def compiled(folder: Path, name: str, nodes: list[Any], *tensors: Any) -> str:
    graph = helper.make_graph(nodes, name, list(tensors[:-1]), [tensors[-1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / f"{name}.onnx")
    autoglm.compile(folder / f"{name}.onnx", folder / name, backend="onnxruntime")
    return f"{name}={folder / name}"


def models(folder: Path) -> list[str]:
    """`dense`, `two`, `pairs`, and `broken`, of which a byte has changed."""
    floats, value = TensorProto.FLOAT, helper.make_tensor_value_info
    dense = dense_bundle(folder)
    shutil.copytree(dense, folder / "broken")
    corrupt(folder / "broken")
    two = compiled(
        folder,
        "two",
        [
            helper.make_node("Cast", ["a"], ["c"], to=floats),
            helper.make_node("Add", ["c", "b"], ["y"]),
        ],
        value("a", TensorProto.INT32, ["n", 3]),
        value("b", floats, ["n", 3]),
        value("y", floats, ["n", 3]),
    )
    pairs = compiled(
        folder,
        "pairs",
        [helper.make_node("Relu", ["x"], ["y"])],
        value("x", floats, [2, WIDTH]),
        value("y", floats, [2, WIDTH]),
    )
    return [f"dense={dense}", two, pairs, f"broken={folder / 'broken'}"]


@dataclass(frozen=True)
class Place:
    """A server and who asks it."""

    server: Server
    client: Client


@contextmanager
def place(options: ServeOptions, keys: Mapping[str, str], broker: Mosquitto) -> Iterator[Place]:
    with running(options) as server:
        client = Client(server.urls, keys, broker.port)
        try:
            yield Place(server, client)
        finally:
            client.close()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    """One server open to anybody, one with keys, one that is about to leave."""
    folder = tmp_path_factory.mktemp("faults")
    served = models(folder)
    limits = BatchLimits(
        max_queue_rows=MAX_QUEUE, inline_below_s=0.0
    )  # a held engine holds no loop
    keys = folder / "keys"
    secrets = {
        name: add_key(keys, name, models=("two",) if name == "other" else ())[1]
        for name in ("other", "often", "small")
    }
    guard = GuardOptions(
        keys=keys,
        limits={"often": Limit(rate=1e-6, burst=1), "small": Limit(max_bytes=64)},
    )
    with Mosquitto(folder) as broker:
        said = TransportOptions(max_bytes=MAX_BYTES)
        open_ = ServeOptions(
            served, ALL | {"mqtt": f"{broker.url}?prefix=open/v1"}, said, batch=limits
        )
        keyed = replace(
            open_, addresses=ALL | {"mqtt": f"{broker.url}?prefix=keyed/v1"}, guard=guard
        )
        leaving = replace(open_, addresses={"grpc": "127.0.0.1:0"}, drain_s=60.0)
        with (
            place(open_, {}, broker) as first,
            place(keyed, secrets, broker) as second,
            place(leaving, {}, broker) as third,
        ):
            first.client.prefix, second.client.prefix = "open/v1", "keyed/v1"
            yield {"open": first, "keyed": second, "leaving": third}


# --- what may be the matter with a server --------------------------------------------------------


class Held:
    """An engine's run that waits until it is let go."""

    def __init__(self, run: Any) -> None:
        self.run, self.free = run, threading.Event()

    def __call__(self, feeds: Any) -> Any:
        assert self.free.wait(60)
        return self.run(feeds)


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit, "it did not come true in a minute"
        time.sleep(0.002)


def batcher_of(server: Server, model: str = "dense") -> Any:
    return next(b for name, _, b in server.pool.batchers() if name == model)


@contextmanager
def instead(batcher: Any, run: Callable[[Any], Any]) -> Iterator[None]:
    """Another run in place of the engine's."""
    real, batcher.run = batcher.run, run
    try:
        yield
    finally:
        batcher.run = real


def raising(error: Exception) -> Callable[[Any], Any]:
    def run(_feeds: Any) -> Any:
        raise error

    return run


@contextmanager
def held(server: Server) -> Iterator[None]:
    batcher = batcher_of(server)
    run = Held(batcher.run)
    with instead(batcher, run):
        try:
            yield
        finally:
            run.free.set()
            until(lambda: not batcher.busy)


@contextmanager
def full(server: Server) -> Iterator[None]:
    """One row runs and does not end, as many as may wait do."""
    batcher, url = batcher_of(server), f"{server.urls['http']}/v1/infer"

    def ask(rows: int) -> threading.Thread:
        body = {"model_name": "dense", "data": ROW * rows}
        thread = threading.Thread(target=lambda: httpx.post(url, json=body, timeout=60))
        thread.start()
        return thread

    threads = []
    with held(server):
        threads.append(ask(1))
        until(lambda: batcher.busy and not batcher.queued_rows)
        threads.append(ask(MAX_QUEUE))
        until(lambda: batcher.queued_rows == MAX_QUEUE)
        yield
    for thread in threads:
        thread.join(60)


@contextmanager
def resting(server: Server) -> Iterator[None]:
    (engine,) = server.pool.served("dense").engines
    engine.quarantine = Quarantine("it is a test", 1.0)
    try:
        yield
    finally:
        engine.quarantine = None


@contextmanager
def starting(server: Server) -> Iterator[None]:
    server.gateway.state = "starting"
    try:
        yield
    finally:
        server.gateway.state = "ready"


@contextmanager
def mistaken(server: Server) -> Iterator[None]:
    """The gateway has a bug: no engine's fault, and no client's."""
    real = server.gateway.infer
    server.gateway.infer = raising(KeyError("a secret"))  # type: ignore[method-assign]
    try:
        yield
    finally:
        server.gateway.infer = real  # type: ignore[method-assign]


STATES: dict[str, Callable[[Server], Any]] = {
    "held": held,
    "full": full,
    "crashing": lambda s: instead(batcher_of(s), raising(RuntimeError("the engine is broken"))),
    "no memory": lambda s: instead(batcher_of(s), raising(MemoryError())),
    "other": lambda s: instead(batcher_of(s), lambda feeds: {"z": feeds["x"]}),
    "resting": resting,
    "starting": starting,
    "mistaken": mistaken,
}


def expected(fault: Fault, wire: str) -> Outcome:
    row = TABLE[fault.code]
    status = row.grpc if wire in (V2_GRPC, GRPC) else row.http
    return Outcome(fault.code, status)


def played(fault: Fault, place: Place) -> dict[str, Outcome]:
    """What each wire says where the fault can be."""
    found = {}
    for wire in WIRES:
        if wire not in fault.never:
            with STATES[fault.state](place.server) if fault.state else nothing():
                found[wire] = place.client.ask(wire, fault.ask, fault.bodies.get(wire))
    return found


@contextmanager
def nothing() -> Iterator[None]:
    yield


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_a_fault_is_the_same_on_every_wire(
    fault: Fault, places: dict[str, Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places[fault.server]
    if fault.ask.key == "often":
        place.client.ask(REST, fault.ask)  # its one token
    if fault.server == "leaving":
        leave(place, monkeypatch)

    found = played(fault, place)

    assert found == {wire: expected(fault, wire) for wire in found}
    assert set(found) | set(fault.never) == set(WIRES)
    if fault.server == "open":  # and nobody else is the worse for it
        assert place.client.ask(REST, GOOD) == Outcome("", 200)


def leave(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin to drain; for a minute clients are turned away."""
    monkeypatch.setattr("autoglm.serve.grpc.server.TURN_AWAY_S", 60.0)
    server = place.server
    asyncio.run_coroutine_threadsafe(server.drain(), server._tasks[0].get_loop())
    until(lambda: server.gateway.state == "draining")


BODIES: tuple[tuple[Ask, Mapping[str, bytes]], ...] = (
    (GOOD, {}),
    (TWO, {}),
    (replace(x(ROW * 2), model="pairs"), {}),
    (replace(GOOD, timeout_s=60.0, priority=1, outputs=("y",), version="1"), {}),
    (GOOD, data("[[1, 2, 3, 4]]")),
    (TWO, counts("1")),
    (GOOD, typed({"floats": [1, 2, 3, 4]}, contents={"fp32_contents": [1, 2, 3, 4]})),
    (TWO, typed({"ints": [1, 2, 3]}, "int32", {"int_contents": [1, 2, 3]})),
)


@pytest.mark.parametrize(("ask", "bodies"), BODIES)
def test_without_the_fault_each_wire_answers(
    ask: Ask, bodies: Mapping[str, bytes], places: dict[str, Place]
) -> None:
    wires = bodies or WIRES

    found = {wire: places["open"].client.ask(wire, ask, bodies.get(wire)) for wire in wires}

    ok = {w: Outcome("", "OK" if w in (V2_GRPC, GRPC) else 200) for w in wires}
    assert found == ok


def test_there_are_enough_faults_and_none_twice() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 30
    assert all(set(fault.never) < set(WIRES) for fault in FAULTS)
    assert {fault.code for fault in FAULTS} <= set(TABLE)
