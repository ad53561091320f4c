"""Client certificates and keys on a real server, over each wire."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serve.certificates import self_signed
from served_bundles import bundle

from autoglm.cli.serve import serve
from autoglm.errors import ConfigError, ForbiddenError, OverloadedError
from autoglm.serve import server as serving
from autoglm.serve.core import Credentials
from autoglm.serve.guard import Guard, GuardOptions
from autoglm.serve.options import Tls, TransportOptions
from autoglm.serve.server import ServeOptions, Server

BODY = {"model_name": "double", "data": [[1.0, 2, 3, 4]]}


def over_grpc(url: str, certificate: Path, key: Path) -> Any:
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(
        url.rpartition("//")[2].replace("127.0.0.1", "localhost"),
        ssl=True,
        root_certificates=str(certificate),
        private_key=str(key),
        certificate_chain=str(certificate),
    )
    value = triton.InferInput("x", [1, 4], "FP32")
    value.set_data_from_numpy(np.ones((1, 4), "float32"))
    try:
        return client.infer("double", [value]).as_numpy("y")
    finally:
        client.close()


def test_a_client_certificate_is_the_same_client_over_every_wire(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    bundle(tmp_path / "models" / "double" / "1", 2.0)
    options = ServeOptions(
        [str(tmp_path / "models")],
        {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0"},
        TransportOptions(tls=Tls(certificate, key, certificate)),
        guard=GuardOptions(certificates=True),
    )
    trusting = ssl.create_default_context(cafile=str(certificate))
    showing = ssl.create_default_context(cafile=str(certificate))
    showing.load_cert_chain(certificate, key)

    async def story() -> None:
        async with Server(options) as running:
            url = running.urls["http"]
            for http2 in (False, True):
                async with httpx.AsyncClient(verify=showing, http2=http2, base_url=url) as http:
                    got = await http.post("/v1/infer", json=BODY)
                assert (got.status_code, got.http_version) == (
                    200,
                    "HTTP/2" if http2 else "HTTP/1.1",
                )
            async with httpx.AsyncClient(verify=trusting, base_url=url) as http:
                with pytest.raises(httpx.TransportError):
                    await http.post("/v1/infer", json=BODY)
            await asyncio.to_thread(over_grpc, running.urls["grpc"], certificate, key)
            running.telemetry.fold()

            seen = [(r.transport, r.client) for r in running.telemetry.recent]
        assert seen == [("http", "localhost"), ("http", "localhost"), ("grpc", "localhost")]

    asyncio.run(asyncio.wait_for(story(), 120))


TABLE = """
admins = ["ops"]
[subjects]
"CN=7f3a,O=Example" = "ops"
"CN=beef,O=Example" = "alice"
[limits.alice]
rate = 0.001
burst = 2.0
"""


def guard_of(table: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """The door of `autoglm serve --tls-client-ca … --clients TABLE`."""
    given: list[ServeOptions] = []
    monkeypatch.setattr(serving, "serve", lambda options, announce: given.append(options))
    file = table.with_name("some.pem")
    serve(["m"], tls_cert=file, tls_key=file, tls_client_ca=file, clients=table)
    return Guard(given[0].guard)


def test_the_table_of_clients_names_certificates_admins_and_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "clients.toml"
    table.write_text(TABLE)
    guard = guard_of(table, monkeypatch)

    ops, alice = (
        guard.authenticate(Credentials("http", certificate=f"CN={cn},O=Example"))
        for cn in ("7f3a", "beef")
    )
    guard.permit(ops, admin=True)
    with pytest.raises(ForbiddenError):
        guard.permit(alice, admin=True)
    with pytest.raises(ForbiddenError):
        guard.authenticate(Credentials("http", certificate="CN=ops"))
    for client in (ops, ops, ops, alice, alice):
        guard.admit(client)
    with pytest.raises(OverloadedError):
        guard.admit(alice)


def test_a_wrong_table_of_clients_is_refused_with_all_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "clients.toml"
    table.write_text('admin = ["ops"]\n[subjects]\n"CN=a" = ""\n[limits.bob]\nrate = -1.0\n')

    with pytest.raises(ConfigError) as refused:
        guard_of(table, monkeypatch)

    for key in ("admin", "subjects.CN=a", "limits.bob.rate"):
        assert key in str(refused.value)
