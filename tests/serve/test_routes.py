"""The routing table: who gets what and why; validated and replaced whole, followed from a file."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import (
    AutoGLMError,
    ConfigError,
    InvalidRequestError,
    NotOfferedError,
    OverloadedError,
    TooLargeError,
)
from autoglm.serve.core import Client, Credentials
from autoglm.serve.routes import Routes
from autoglm.serve.routes.handlers import handle
from autoglm.serve.routes.table import Table, validate

TABLE: dict[str, Any] = {
    "rules": [
        {
            "name": "gold",
            "match": {"clients": ["gold-*"], "models": ["minilm*"]},
            "transport": "grpc",
            "version": "stable",
            "priority": 10,
            "limits": {"rate_per_s": 50, "max_bytes": 1000, "concurrency": 4},
        },
        {"name": "cameras", "match": {"mqtt": ["cam-?", "cam-??"]}, "model": "small"},
        {"name": "plant", "match": {"addresses": ["10.1.0.0/16", "fd00::/8"]}, "transport": "http"},
        {"name": "device", "match": {"certificates": ["CN=dev-*"]}, "version": "2"},
        {"name": "beta", "match": {"headers": {"X-Stage": "beta"}}, "version": "3"},
    ],
    "edge": {"addresses": ["192.168.0.0/16"]},
}


def client(name: str = "anonymous", **said: Any) -> Client:
    return Client(name, Credentials("http", **said))


def table(values: dict[str, Any]) -> Routes:
    routes = Routes()
    routes.set(values)
    return routes


@pytest.mark.parametrize(
    ("who", "model", "expected"),
    [
        (client("gold-1"), "minilm-6", ("grpc", "minilm-6", "stable", 10, "rule gold")),
        (client("gold-1"), "other", ("grpc", "other", "", 0, "default for the data centre")),
        (client(client_id="cam-7"), "big", ("mqtt", "small", "", 0, "rule cameras: MQTT id")),
        (client(client_id="cam-777"), "big", ("mqtt", "big", "", 0, "default for the edge")),
        (client(address="10.1.2.3:555"), "m", ("http", "m", "", 0, "in 10.1.0.0/16")),
        (client(address="::ffff:10.1.2.3"), "m", ("http", "m", "", 0, "in 10.1.0.0/16")),
        (client(address="[fd00::1]:80"), "m", ("http", "m", "", 0, "in fd00::/8")),
        (client(address="10.2.0.1"), "m", ("grpc", "m", "", 0, "default for the data centre")),
        (client(address="192.168.7.7"), "m", ("mqtt", "m", "", 0, "address 192.168.7.7 in")),
        (client(certificate="CN=dev-3"), "m", ("grpc", "m", "2", 0, "rule device: certificate")),
        (client(headers={"x-stage": "beta"}), "m", ("grpc", "m", "3", 0, "header x-stage")),
        (client(headers={"x-stage": "alpha"}), "m", ("grpc", "m", "", 0, "default")),
        (client(address="no address"), "m", ("grpc", "m", "", 0, "default")),
    ],
)
def test_the_first_rule_that_holds_decides(
    who: Client, model: str, expected: tuple[str, str, str, int, str]
) -> None:
    route = table(TABLE).route(who, model)

    assert (route.transport, route.model, route.version, route.priority) == expected[:4]
    assert expected[4] in route.why


def test_a_rules_limits_come_with_its_route() -> None:
    limits = table(TABLE).route(client("gold-1"), "minilm").limits

    assert (limits.rate_per_s, limits.max_bytes, limits.concurrency) == (50, 1000, 4)


def test_every_condition_of_a_rule_must_hold() -> None:
    both = {"clients": ["a"], "addresses": ["10.0.0.0/8"]}
    routes = table({"rules": [{"name": "both", "match": both, "version": "9"}]})

    assert routes.route(client("a", address="10.0.0.1"), "m").version == "9"
    assert routes.route(client("a", address="11.0.0.1"), "m").version == ""
    assert routes.route(client("b", address="10.0.0.1"), "m").version == ""


def test_the_defaults_are_mqtt_at_the_edge_and_grpc_in_the_data_centre() -> None:
    routes = Routes()

    assert routes.route(client(client_id="sensor"), "m").transport == "mqtt"
    assert routes.route(client(address="192.168.1.9"), "m").transport == "mqtt"
    assert routes.route(client("service", address="10.0.0.9"), "m").transport == "grpc"


def test_every_fault_of_a_table_is_named_at_once_and_the_old_one_stays() -> None:
    routes = table(TABLE)
    before = routes.table
    wrong = {
        "rules": [
            {"name": "a b", "match": {"addresses": ["10.0.0.0/33"], "colour": 1}},
            {"name": "r", "limits": {"rate_per_s": -1, "max_bytes": "many"}, "priority": 1000},
        ],
        "egde": {},
        "preload": [{"model": "m", "cron": "61 * * * *"}],
    }

    with pytest.raises(ConfigError) as raised:
        routes.set(wrong)

    text = str(raised.value)
    for part in (
        "rules.0.name",
        "rules.0.match.addresses.0",
        "rules.0.match.colour: unknown key; known: addresses, certificates",
        "rules.1.limits.rate_per_s",
        "rules.1.limits.max_bytes",
        "rules.1.priority",
        "egde: unknown key; known: defaults, edge, preload, rules, sequence",
        "minute: 0 to 59, found '61'",
    ):
        assert part in text
    assert routes.table is before
    assert "rules.0.name" in routes.fault
    routes.set(TABLE)
    assert routes.fault == ""


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than once: a"):
        validate({"rules": [{"name": "a"}, {"name": "a"}]}, "table")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["rules", "match", "name", "edge", "limits", "mqtt", "preload", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    ).map(lambda value: value if isinstance(value, dict) else {"rules": value})
)
def test_no_table_whatever_is_in_it_does_more_than_be_refused(values: dict[str, Any]) -> None:
    routes = table(TABLE)

    with contextlib.suppress(ConfigError):
        routes.set(values)

    assert routes.route(client("gold-1"), "minilm").transport
    assert isinstance(routes.table, Table)


@given(st.text(), st.text(), st.text())
def test_no_client_breaks_the_table(name: str, address: str, header: str) -> None:
    who = client(name, address=address, client_id=name, headers={"x-stage": header})

    assert table(TABLE).route(who, name).transport in ("grpc", "mqtt", "http")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def written(path: Path, text: str) -> None:
    """As an editor does: another file takes the name."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text, "utf-8")
    os.replace(fresh, path)


def test_a_file_is_followed_while_requests_are_answered(tmp_path: Path) -> None:
    path = tmp_path / "routes.toml"
    path.write_text('[[rules]]\nname = "a"\nversion = "1"\n', "utf-8")

    def version(routes: Routes) -> str:
        return routes.route(client(), "m").version

    async def work() -> None:
        told: list[int] = []
        routes = Routes(on_change=lambda t: told.append(len(t.rules)))
        routes.load(path)
        watching = asyncio.create_task(routes.watch(path, period_s=0.01))
        assert version(routes) == "1"

        written(path, '[[rules]]\nname = "a"\nversion = "2"\n')  # same size
        await until(lambda: version(routes) == "2")
        written(path, "[[rules]]\nname = ")
        await until(lambda: bool(routes.fault))
        assert version(routes) == "2"
        assert "routes.toml" in routes.fault
        path.unlink()
        await until(lambda: "no file" in routes.fault)
        assert version(routes) == "2"
        written(path, '[[rules]]\nname = "a"\nversion = "3"\n[[rules]]\nname = "b"\n')
        await until(lambda: version(routes) == "3")
        assert routes.fault == ""
        assert told == [1, 1, 2]
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    asyncio.run(work())


def test_what_changed_before_the_watch_began_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    path.write_text("{}", "utf-8")

    async def work() -> None:
        routes = Routes()
        routes.load(path)
        written(path, '{"rules": [{"name": "a", "version": "7"}]}')
        watching = asyncio.create_task(routes.watch(path, period_s=0.01))
        await until(lambda: bool(routes.table.rules))
        watching.cancel()

    asyncio.run(work())


def anything(*_: object, **__: object) -> None:
    """A server that permits everything."""


def test_the_answer_says_which_protocol_and_why() -> None:
    routes = table(TABLE)

    def ask(**query: str) -> dict[str, Any]:
        said = {k: [v] for k, v in query.items()}
        return handle(routes, "GET", "/v1/route", said, {}, client("me"), anything)

    assert ask(client="gold-7", model="minilm")["version"] == "stable"
    assert ask(client="10.1.9.9")["transport"] == "http"
    assert ask(mqtt="cam-1")["model"] == "small"
    assert ask(header="X-Stage: beta")["version"] == "3"
    assert ask(certificate="CN=dev-1")["why"].startswith("rule device")
    assert ask()["client"] == "me"
    assert ask(client="gold-7", model="minilm")["limits"]["concurrency"] == 4
    with pytest.raises(InvalidRequestError, match="Unknown parameter 'colour'"):
        ask(colour="red")


def test_the_table_is_read_and_replaced_over_the_same_door() -> None:
    routes = Routes()

    put = handle(routes, "PUT", "/v1/routes", {}, TABLE, client(), anything)

    assert put == handle(routes, "GET", "/v1/routes", {}, {}, client(), anything)
    assert [r["name"] for r in put["table"]["rules"]][:2] == ["gold", "cameras"]
    assert Routes().set(put["table"]) == routes.table  # what is shown can be put back
    with pytest.raises(ConfigError):
        handle(routes, "PUT", "/v1/routes", {}, {"rules": 1}, client(), anything)
    assert handle(routes, "GET", "/v1/routes", {}, {}, client(), anything)["fault"]
    with pytest.raises(NotOfferedError):
        handle(routes, "DELETE", "/v1/routes", {}, {}, client(), anything)
    assert issubclass(NotOfferedError, AutoGLMError)


def test_a_rules_limits_hold_for_each_of_its_clients_apart() -> None:
    limits = {"max_bytes": 100, "concurrency": 2}
    routes = table({"rules": [{"name": "few", "match": {"clients": ["a", "b"]}, "limits": limits}]})
    route = routes.route(client("a"), "m")

    with pytest.raises(TooLargeError), routes.admitted(route, client("a"), 101):
        pass
    with routes.admitted(route, client("a"), 100), routes.admitted(route, client("a")):
        with routes.admitted(route, client("b")):
            pass
        with (
            pytest.raises(OverloadedError, match="at once by rule few") as raised,
            routes.admitted(route, client("a")),
        ):
            pass
        assert raised.value.facts["retry_after_s"] > 0
    with routes.admitted(route, client("a")):
        pass


def test_a_rules_rate_is_counted_and_a_new_table_counts_anew() -> None:
    rule = {"name": "slow", "limits": {"rate_per_s": 0.001}}
    routes = table({"rules": [rule]})

    def send(address: str) -> None:
        who = client(address=address)
        with routes.admitted(routes.route(who, "m"), who):
            pass

    send("10.0.0.1")
    with pytest.raises(OverloadedError, match="requests a second"):
        send("10.0.0.1")
    send("10.0.0.2")
    routes.set({"rules": [{**rule, "limits": {"rate_per_s": 0.002}}]})
    send("10.0.0.1")


def test_without_limits_nothing_is_counted() -> None:
    routes = Routes()
    route = routes.route(client(), "m")

    for _ in range(1000):
        with routes.admitted(route, client(), 1 << 40):
            pass
