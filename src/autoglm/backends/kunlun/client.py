"""The one long-lived program in the Paddle environment, shared by everything in this process."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from weakref import finalize

from autoglm.backends.kunlun.onnx_paddle.wire import Blob, pack, unpack
from autoglm.toolchain.environment import Environment, require
from autoglm.toolchain.service import Service

_WORKER = Path(__file__).parent / "onnx_paddle"


class Refusal(Exception):
    """The worker answered that it cannot: the node (or ""), its operator, the reason."""

    def __init__(self, error: Mapping[str, str]) -> None:
        super().__init__(error["reason"])
        self.reason, self.node, self.op = error["reason"], error["node"], error["op"]


class Client:
    """Asks the worker; several threads may."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        folder = tempfile.mkdtemp(prefix="autoglm-paddle-")
        finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.service = Service(
            [str(environment.python), str(_WORKER)],
            log=Path(folder) / "paddle.log",
            env=environment.variables(),
            cwd=Path(folder),
        )

    def ask(
        self, header: Mapping[str, Any], blobs: Sequence[Blob] = (), *, timeout_s: float
    ) -> tuple[dict[str, Any], list[Blob]]:
        """The answer and its arrays; Refusal where the worker refuses, ExecutionError where it
        dies or is late.
        """
        reply = self.service.ask(pack(dict(header), blobs), timeout_s=timeout_s)
        answer, arrays = unpack(reply)
        if "error" in answer:
            raise Refusal(answer["error"])
        return answer, arrays


def client() -> Client:
    """The worker of this process; BackendUnavailableError without the Paddle environment."""
    return _client(require("paddle"), os.getpid())


@cache
def _client(environment: Environment, pid: int) -> Client:
    return Client(environment)
