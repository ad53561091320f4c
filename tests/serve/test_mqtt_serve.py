"""`autoglm serve --mqtt`: a bundle behind a real broker, in its own process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from serve.mosquitto import BINARY, MISSING, Mosquitto
from served_bundles import bundle


def ask(broker: Mosquitto, topic: str, body: object) -> dict[str, object]:
    out = subprocess.run(
        ["mosquitto_rr", "-V", "mqttv5", "-p", str(broker.port), "-t", f"autoglm/v1/{topic}/infer",
         "-e", "me/reply", "-q", "1", "-W", "50", "-m", json.dumps(body)],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    answer: dict[str, object] = json.loads(out.stdout)
    return answer


def status(broker: Mosquitto) -> str:
    out = subprocess.run(
        ["mosquitto_sub", "-p", str(broker.port), "-t", "autoglm/v1/status/w", "-C", "1",
         "-W", "50"],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    return str(json.loads(out.stdout)["state"])


@pytest.mark.skipif(BINARY is None, reason=MISSING)
def test_serve_answers_over_mqtt_and_leaves_in_order(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "triple", 3.0)
    x = np.float32([[1, 2, 3, 4], [0, 0, 0, 1]])
    with Mosquitto(tmp_path) as broker:
        start = "from autoglm.cli import main; main()"
        server = subprocess.Popen(
            [sys.executable, "-c", start, "serve", f"triple={folder}", "--mqtt",
             f"{broker.url}?client_id=w"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            assert server.stdout.readline().split() == ["mqtt", broker.url]
            name, version, state, *_ = server.stdout.readline().split()
            answer = ask(broker, "triple", {"data": x.tolist(), "id": "q"})
            named = ask(broker, f"triple/{version}", {"data": x.tolist()})
            absent = ask(broker, "none", {"data": [[1]]})
            uneven = ask(broker, "triple", {"data": [[1, 2]]})

            assert (name, state) == ("triple", "ready")
            assert (answer["status_code"], answer["id"]) == (200, "q")
            np.testing.assert_allclose(np.array(answer["result"]), 3 * x, rtol=1e-5)
            assert named["result"] == answer["result"]
            assert (absent["status_code"], absent["code"]) == (404, "model-not-served")
            assert uneven["status_code"] == 400
            assert status(broker) == "online"
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
            assert status(broker) == "offline"
        finally:
            server.kill()
            server.wait()
