"""Large input: 1x3x224x224 through a small network, as JSON and as binary tensors.

    python -m benchmarks.serving.large [--quick]

What is compared is the whole round trip over one local connection with the raw call of the engine
on the same values, and our parse of the JSON with pysimdjson's own; all take turns in one run.
Times are means of the fastest quarter. Bars: binary at most 1.1 of the engine, the parse at most
1.2 of pysimdjson.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from pathlib import Path

import numpy as np
import simdjson

import autoglm
from autoglm.runtime.timing import interleave
from autoglm.serve.http.numbers import array_of, parse
from autoglm.serve.load.http import binary_question, read_oip
from benchmarks.models import path_of
from benchmarks.serving.common import FOLDER, free_port, save, serving, table

SHAPE = (1, 3, 224, 224)
MODEL = "squeezenet"


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, str]:
        """An answer's body, and where its binary part begins; OSError where it is no 200."""
        self._connection.request("POST", path, body, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise OSError(f"{answer.status}: {data[:200]!r}")
        return data, answer.headers.get("inference-header-content-length", "")


def main() -> int:
    """Print the times and the ratios that the bars speak of."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    seconds = 10.0 if parser.parse_args().quick else 90.0
    FOLDER.mkdir(parents=True, exist_ok=True)
    place = FOLDER / MODEL
    if not (place / "bundle.json").exists():
        autoglm.compile(path_of(MODEL, 1, FOLDER), place, backend="onnxruntime")
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32).round(6)
    rows = measured(place, x, seconds)
    table(["what", "ms", "of", "ratio"], rows)
    save("large", rows)
    return 0


def measured(place: Path, x: np.ndarray, seconds: float) -> list[dict[str, object]]:
    """Everything in turn, in one run."""
    port = free_port()
    program = str(Path(sys.executable).with_name("autoglm"))
    argv = [program, "serve", f"{MODEL}={place.absolute()}", "--http", f"127.0.0.1:{port}"]
    text = json.dumps({"model_name": MODEL, "data": x.tolist()}).encode()
    json_headers = {"content-type": "application/json"}

    def answered() -> bool:
        try:
            return bool(Client(port).post("/v1/infer", text, json_headers))
        except OSError:
            return False

    with (
        autoglm.open(place) as session,
        serving(argv, answered, FOLDER / "large.log", Path.cwd()),
    ):
        (name,) = (i.name for i in session.inputs)
        headers, body = binary_question({name: x})
        path, client = f"/v2/models/{MODEL}/infer", Client(port)
        equal(session.run({name: x}), client.post(path, body, dict(headers)))
        samples = interleave(
            {
                "engine alone": lambda: session.run({name: x}),
                "HTTP, binary tensor": lambda: client.post(path, body, dict(headers)),
                "HTTP, JSON": lambda: client.post("/v1/infer", text, json_headers),
                "pysimdjson": lambda: raw_parse(text),
                "our parse of JSON": lambda: parsed(text),
            },
            budget_s=seconds,
            most=10_000,
        )
    ms = {what: taken.estimate * 1e3 for what, taken in samples.items()}
    against = {"HTTP, binary tensor": "engine alone", "our parse of JSON": "pysimdjson"}
    return [
        {"what": what, "ms": value}
        | ({"of": against[what], "ratio": value / ms[against[what]]} if what in against else {})
        for what, value in ms.items()
    ]


def equal(right: dict[str, np.ndarray], answer: tuple[bytes, str]) -> None:
    """SystemExit where the server's answer is not the engine's."""
    found = read_oip(answer[0], {b"inference-header-content-length": answer[1].encode()})
    for name, value in right.items():
        if not np.allclose(found[name], value, rtol=1e-4, atol=1e-5):
            raise SystemExit(f"the server's {name} is not the engine's")


def parsed(body: bytes) -> np.ndarray:
    """The body's array, as the gateway reads it."""
    return np.asarray(array_of("x", parse(body)["data"], "float32"))


def raw_parse(body: bytes) -> np.ndarray:
    """The same by pysimdjson alone, which checks no shape."""
    data = simdjson.Parser().parse(body)["data"]
    return np.frombuffer(data.as_buffer(of_type="d"), np.float64).astype(np.float32).reshape(SHAPE)


if __name__ == "__main__":
    raise SystemExit(main())
