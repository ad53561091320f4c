"""The one long-lived program in the Paddle environment, shared by everything in this process."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from weakref import finalize

from autoglm.backends.kunlun.onnx_paddle.wire import Blob, pack, unpack
from autoglm.errors import ExecutionError, LimitError
from autoglm.toolchain.environment import Environment, require
from autoglm.toolchain.service import Service

_WORKER = Path(__file__).parent / "onnx_paddle"
# How Paddle, the C++ library and the loader say that there is no more memory.
_FULL = re.compile(
    "ResourceExhausted|Fail to alloc|bad_alloc|MemoryError|[Cc]annot allocate|failed to map segment"
)


class Refusal(Exception):
    """The worker answered that it cannot: the node (or ""), its operator, the reason."""

    def __init__(self, error: Mapping[str, str]) -> None:
        super().__init__(error["reason"])
        self.reason, self.node, self.op = error["reason"], error["node"], error["op"]


class Client:
    """Asks the worker; several threads may."""

    def __init__(self, environment: Environment, memory_bytes: int = 0) -> None:
        self.environment = environment
        self.memory_bytes = memory_bytes
        folder = tempfile.mkdtemp(prefix="autoglm-paddle-")
        finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.service = Service(
            [str(environment.python), str(_WORKER)],
            log=Path(folder) / "paddle.log",
            env=environment.variables(),
            cwd=Path(folder),
            memory_bytes=memory_bytes,
        )

    def ask(
        self, header: Mapping[str, Any], blobs: Sequence[Blob] = (), *, timeout_s: float
    ) -> tuple[dict[str, Any], list[Blob]]:
        """The answer and its arrays; Refusal where the worker refuses, ExecutionError where it
        dies or is late, LimitError where it wants more memory than it may have.
        """
        try:
            reply = self.service.ask(pack(dict(header), blobs), timeout_s=timeout_s)
        except ExecutionError as error:
            self._require_memory(str(error.facts.get("tail", "")), error)
            raise
        answer, arrays = unpack(reply)
        if "error" in answer:
            refusal = Refusal(answer["error"])
            self._require_memory(refusal.reason, refusal)
            raise refusal
        return answer, arrays

    def _require_memory(self, said: str, error: Exception) -> None:
        if self.memory_bytes and _FULL.search(said):
            raise LimitError(
                "Paddle needs more memory than its limit of {limit} MiB.",
                hint="Raise it with --memory-limit-bytes, or give smaller input shapes.",
                limit=self.memory_bytes >> 20,
            ) from error


def client(memory_bytes: int = 0) -> Client:
    """The worker of this process for that limit of its address space (0: none);
    BackendUnavailableError without the Paddle environment.
    """
    return _client(require("paddle"), memory_bytes, os.getpid())


@cache
def _client(environment: Environment, memory_bytes: int, pid: int) -> Client:
    return Client(environment, memory_bytes)
