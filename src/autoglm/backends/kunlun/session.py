"""Run a compiled model in the worker; where the worker died, the next run starts and opens anew."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autoglm.backends.kunlun.calls import CARRIERS
from autoglm.backends.kunlun.client import Client, Refusal, client
from autoglm.backends.kunlun.onnx_paddle.wire import Blob
from autoglm.errors import (
    BackendUnavailableError,
    BundleError,
    ConfigError,
    ExecutionError,
)
from autoglm.spec import Artifact, Closing, Feeds, RunOptions, TensorInfo, Value
from autoglm.tensor.dtype import to_numpy
from autoglm.tensor.feeds import check_feeds, fits

_TIMEOUT_S = 600.0
_NAMED = re.compile(r"|cpu|xpu(:(?P<number>[0-9]{1,9}))?|(?P<alone>[0-9]{1,9})")
_NUMBERS = itertools.count(1)


def open_session(artifact: Artifact, folder: Path, options: RunOptions) -> PaddleSession:
    """Load the files onto a chip where Paddle sees one, else onto the CPU."""
    params = str(artifact.meta.get("params", ""))
    for name in (artifact.entry, *([params] if params else [])):
        if not (folder / name).is_file():
            raise BundleError("The kunlun artifact's file {path} is missing.", path=name)
    timeout = _timeout(options.settings)
    worker = client(options.memory_limit_bytes)
    question = {
        "verb": "open",
        "session": next(_NUMBERS),
        "model": str(folder / artifact.entry),
        "params": str(folder / params) if params else "",
        "options": {
            "device": _device(worker, options.device),
            "threads": options.threads or int(artifact.meta.get("threads", 0)) or _cores(),
            "optimize": bool(artifact.meta.get("optimize", True)),
        },
    }
    return PaddleSession(worker, question, artifact, timeout)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _timeout(settings: Mapping[str, str]) -> float:
    given = settings.get("timeout_s", str(_TIMEOUT_S))
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ConfigError(
            "kunlun's timeout_s is a number of seconds above 0; found {value!r}.", value=given
        )
    return seconds


def _device(worker: Client, asked: str) -> str:
    """`xpu:N` or `cpu`; the CPU stands in only where no device is named."""
    named = _NAMED.fullmatch(asked)
    if named is None:
        raise ConfigError("kunlun runs on cpu or xpu:N; found device {device!r}.", device=asked)
    if asked == "cpu":
        return "cpu"
    try:
        count = int(worker.ask({"verb": "about"}, timeout_s=_TIMEOUT_S)[0]["xpus"])
    except Refusal as error:
        raise ExecutionError("Paddle does not start: {cause}.", cause=error.reason) from error
    number = int(named["number"] or named["alone"] or 0)
    if count > number:
        return f"xpu:{number}"
    if not asked:
        return "cpu"
    raise BackendUnavailableError(
        "Paddle sees {count} Kunlun chips; device {device!r} is not one of them.",
        hint="The wheel of the package index has no XPU: install Baidu's paddlepaddle-xpu, "
        "or run on device cpu.",
        count=count,
        device=asked,
    )


class PaddleSession(Closing):
    """One opened model in the worker."""

    def __init__(
        self, worker: Client, question: dict[str, Any], artifact: Artifact, timeout_s: float
    ) -> None:
        self.inputs: tuple[TensorInfo, ...] = artifact.inputs
        self.outputs: tuple[TensorInfo, ...] = artifact.outputs
        self.device: str = question["options"]["device"]
        self.remark = "Paddle on this machine's CPU, not the chip" if self.device == "cpu" else ""
        self._worker: Client | None = worker
        self._question, self._timeout_s = question, timeout_s
        self._feeds = [str(name) for name in artifact.meta["feeds"]]
        try:
            self._open(worker)
        except (ExecutionError, Refusal) as error:
            raise BundleError(
                "{path} does not load: {cause}.", path=artifact.entry, cause=str(error)
            ) from error

    def _open(self, worker: Client) -> None:
        worker.ask(self._question, timeout_s=self._timeout_s)

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once."""
        worker = self._worker
        if worker is None:
            raise ExecutionError("The session is closed.", hint="Open the artifact again.")
        arrays = check_feeds(self.inputs, feeds)
        blobs = [
            _blob(name, info.dtype, arrays[info.name])
            for name, info in zip(self._feeds, self.inputs, strict=True)
            if name  # nothing reads the others
        ]
        try:
            found = self._ask(worker, blobs)
        except Refusal as error:
            raise ExecutionError("Paddle failed: {cause}.", cause=error.reason) from error
        pairs = zip(self.outputs, found, strict=True)
        return {info.name: _array(info, blob) for info, blob in pairs}

    def _ask(self, worker: Client, blobs: list[Blob]) -> list[Blob]:
        question = {"verb": "run", "session": self._question["session"]}
        answer, found = worker.ask(question, blobs, timeout_s=self._timeout_s)
        if "unknown" not in answer:
            return found
        self._open(worker)
        return worker.ask(question, blobs, timeout_s=self._timeout_s)[1]

    def close(self) -> None:
        """Free the model in the worker; may be called twice."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        question = {"verb": "close", "session": self._question["session"]}
        # A worker that died took the model with it.
        with contextlib.suppress(ExecutionError, Refusal):
            worker.ask(question, timeout_s=self._timeout_s)


def _blob(name: str, dtype: str, array: Any) -> Blob:
    carrier = CARRIERS.get(dtype, dtype)
    flat = np.ascontiguousarray(array, to_numpy(carrier)).reshape(-1)
    return name, carrier, array.shape, flat.view(np.uint8).data if flat.size else b""


def _array(info: TensorInfo, blob: Blob) -> Value:
    _, found, shape, data = blob
    dtype = info.dtype or found
    array = np.frombuffer(data, to_numpy(found)).reshape(shape)
    if found != CARRIERS.get(dtype, dtype) or not fits(array.shape, info.shape):
        raise ExecutionError(
            "Paddle gives {name!r} as {dtype} {found}; the model declares {expected} {shape}.",
            name=info.name,
            dtype=found,
            found=list(array.shape),
            expected=info.dtype,
            shape=list(info.shape or ()),
        )
    return array.astype(to_numpy(dtype))  # a copy: the message's memory is read-only
