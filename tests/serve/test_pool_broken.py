"""What is wrong with one model is its own: the others serve, and it is listed with its reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from serve.tiny import running
from served_bundles import bundle, corrupt

from autoglm.errors import ModelNotServedError
from autoglm.serve.server import ServeOptions

Break = Callable[[Path], None]


def _file(text: str) -> Break:
    return lambda folder: (folder / "model.toml").write_text(text, "utf-8") and None


BROKEN: dict[str, tuple[Break, str]] = {
    "no TOML": (_file("[aliases\n"), "model.toml"),
    "an unknown key": (_file('colour = "red"\n'), "colour"),
    "a wrong value": (_file("[[engines]]\nthreads = -1\n"), "engines.0.threads"),
    "another bundle": (_file('[[engines]]\nbundle = "../nowhere"\n'), "is not a bundle"),
    "not UTF-8": (lambda f: (f / "model.toml").write_bytes(b"\xff\xfe") and None, "model.toml"),
    "a changed artifact": (lambda f: corrupt(f / "1"), "has changed since it was written"),
    "a manifest of nothing": (lambda f: (f / "1/bundle.json").write_text("{}") and None, ""),
    "no JSON": (lambda f: (f / "1/bundle.json").write_text("{") and None, ""),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_the_others_serve_and_the_reason_is_told(tmp_path: Path, kind: str) -> None:
    broken, reason = BROKEN[kind]
    bundle(tmp_path / "r/bad/1", 1.0)
    bundle(tmp_path / "r/good", 2.0)
    broken(tmp_path / "r/bad")
    options = ServeOptions([str(tmp_path / "r")], {"http": "127.0.0.1:0"})
    asked = {"model_name": "good", "data": [[1, 2, 3, 4]]}

    with running(options) as server, httpx.Client(base_url=server.urls["http"]) as client:
        assert client.post("/v1/infer", json=asked).json()["result"] == [[2, 4, 6, 8]]
        bad = client.post("/v1/infer", json=asked | {"model_name": "bad"})
        index = {r["name"]: r for r in client.post("/v2/repository/index").json()}
        pool = {r["name"]: r for r in client.get("/v1/pool").json()["models"]}
        page = {r["name"]: r for r in client.get("/v1/ui/state").json()["models"]}

        assert bad.status_code == 404
        assert "its state is failed" in bad.json()["message"]
        assert (index["bad"]["state"], index["good"]["state"]) == ("UNAVAILABLE", "READY")
        assert (pool["bad"]["state"], page["bad"]["state"]) == ("failed", "failed")
        for row in (index["bad"], pool["bad"], page["bad"]):
            assert row["reason"]
            assert reason in row["reason"]
        assert client.get("/readyz").status_code == 200
        assert client.get("/v2/models/bad/ready").status_code == 503
        assert client.get("/v2/models/good/ready").status_code == 200


def test_what_was_mended_is_loaded_when_asked_for(tmp_path: Path) -> None:
    bundle(tmp_path / "r/bad/1", 1.0)
    bundle(tmp_path / "r/good", 2.0)
    _file("colour = 1")(tmp_path / "r/bad")
    options = ServeOptions([str(tmp_path / "r")], {"http": "127.0.0.1:0"})

    with running(options) as server, httpx.Client(base_url=server.urls["http"]) as client:
        assert client.post("/v1/pool/bad/load", json={}).status_code == 400
        assert client.post("/v1/pool/good/load", json={}).status_code == 200
        _file("")(tmp_path / "r/bad")
        assert client.post("/v1/pool/bad/load", json={}).status_code == 200
        asked = {"model_name": "bad", "data": [[1, 2, 3, 4]]}
        assert client.post("/v1/infer", json=asked).status_code == 200
        # What serves goes on when its file breaks later.
        _file("colour = 1")(tmp_path / "r/bad")
        assert client.post("/v1/pool/bad/load", json={}).status_code == 400
        assert client.post("/v1/infer", json=asked).status_code == 200


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_listed(tmp_path: Path) -> None:
    bundle(tmp_path / "r/bad/1", 1.0)
    bundle(tmp_path / "r/good", 2.0)
    (tmp_path / "r/bad").chmod(0)
    options = ServeOptions([str(tmp_path / "r")], {"http": "127.0.0.1:0"})
    try:
        with running(options) as server:
            states = {i.name: i.state for i in server.gateway.models()}
    finally:
        (tmp_path / "r/bad").chmod(0o755)

    assert states == {"bad": "failed", "good": "ready"}


def test_a_strict_server_starts_with_everything_or_not_at_all(tmp_path: Path) -> None:
    bundle(tmp_path / "r/bad/1", 1.0)
    bundle(tmp_path / "r/good", 2.0)
    _file("colour = 1")(tmp_path / "r/bad")
    options = ServeOptions([str(tmp_path / "r")], {"http": "127.0.0.1:0"}, strict=True)

    refused = pytest.raises(ModelNotServedError, match=r"do not load: bad 1: .*colour")
    with refused, running(options):
        pass
    _file("")(tmp_path / "r/bad")
    with running(options) as server:
        assert {i.state for i in server.gateway.models()} == {"ready"}
