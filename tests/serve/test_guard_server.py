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

from autoglm.serve.guard import GuardOptions
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
