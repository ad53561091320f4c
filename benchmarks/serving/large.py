"""Large input: 1x3x224x224 through a model that costs little, as JSON and as binary tensors.

    python -m benchmarks.serving.large [--quick]

What is compared is the whole round trip over a local connection with the raw call of the engine on
the same bytes, and the parse of the JSON alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import tritonclient.http as triton

import autoglm
from autoglm.serve.http.numbers import array_of, parse
from benchmarks.models import path_of
from benchmarks.serving.common import FOLDER, free_port, post, save, serving, table

SHAPE = (1, 3, 224, 224)


def main() -> int:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    seconds = 2.0 if parser.parse_args().quick else 15.0
    FOLDER.mkdir(parents=True, exist_ok=True)
    place = FOLDER / "squeezenet"
    if not (place / "bundle.json").exists():
        autoglm.compile(path_of("squeezenet", 1, FOLDER), place, backend="onnxruntime")
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32).round(6)
    body = json.dumps({"model_name": "squeezenet", "data": x.tolist()}).encode()
    rows = [{"what": "JSON parse alone", "ms": middle(lambda: parsed(body), seconds)}]
    with autoglm.open(place) as session:
        (name,) = (i.name for i in session.inputs)
        rows.append({"what": "engine alone", "ms": middle(lambda: session.run({name: x}), seconds)})
    rows += over_http(place, name, x, body, seconds)
    table(["what", "ms"], rows)
    save("large", rows)
    return 0


def over_http(
    place: Path, name: str, x: np.ndarray, body: bytes, seconds: float
) -> list[dict[str, object]]:
    """The same input through a server of ours."""
    port = free_port()
    program = str(Path(sys.executable).with_name("autoglm"))
    argv = [program, "serve", f"squeezenet={place.absolute()}", "--http", f"127.0.0.1:{port}"]
    url = f"http://127.0.0.1:{port}/v1/infer"
    with serving(argv, url, body, FOLDER / "large.log", Path.cwd()):
        client = triton.InferenceServerClient(f"127.0.0.1:{port}")
        value = triton.InferInput(name, list(x.shape), "FP32")
        value.set_data_from_numpy(x)
        return [
            {
                "what": "HTTP, binary tensor",
                "ms": middle(lambda: client.infer("squeezenet", [value]), seconds),
            },
            {"what": "HTTP, JSON", "ms": middle(lambda: post(url, body), seconds)},
        ]


def parsed(body: bytes) -> np.ndarray:
    """The body's array."""
    return np.asarray(array_of("x", parse(body)["data"], "float32"))


def middle(call: Callable[[], object], seconds: float) -> float:
    """The median in ms."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return median(times) * 1e3


if __name__ == "__main__":
    raise SystemExit(main())
