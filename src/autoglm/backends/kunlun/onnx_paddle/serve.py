"""The worker: answers `about`, `build`, `open`, `run` and `close` until its pipe ends."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .wire import Blob, pack, unpack

Answer = tuple[dict[str, Any], list[Blob]]
_ANSWER = b"+"


def main() -> int:
    """Serve one parent, at the file descriptor that it named."""
    pipe = Connection(int(sys.argv[-1]))
    sessions: dict[int, Any] = {}
    while True:
        try:
            header, blobs = unpack(pipe.recv_bytes())
        except EOFError:
            return 0
        try:
            answer, arrays = _VERBS[header["verb"]](sessions, header, blobs)
        except Exception as error:  # Paddle raises anything; the parent decides what it is
            answer, arrays = {"error": _described(error)}, []
        pipe.send_bytes(_ANSWER + pack(answer, arrays))


def _described(error: Exception) -> dict[str, str]:
    from .build import NodeError, reason

    node = error.node if isinstance(error, NodeError) else None
    return {
        "reason": str(error) if node else reason(error),
        "node": node.name if node else "",
        "op": node.op if node else "",
    }


def _about(sessions: dict[int, Any], header: dict[str, Any], blobs: list[Blob]) -> Answer:
    import paddle

    from .predict import xpu_count

    return {"version": paddle.__version__, "xpus": xpu_count()}, []


def _build(sessions: dict[int, Any], header: dict[str, Any], blobs: list[Blob]) -> Answer:
    from .build import build

    return {"feeds": build(Path(header["calls"]), Path(header["out"]))}, []


def _open(sessions: dict[int, Any], header: dict[str, Any], blobs: list[Blob]) -> Answer:
    from .predict import Predictor

    sessions[header["session"]] = Predictor(header["model"], header["params"], header["options"])
    return {}, []


def _run(sessions: dict[int, Any], header: dict[str, Any], blobs: list[Blob]) -> Answer:
    opened = sessions.get(header["session"])
    if opened is None:  # it was opened in a process that died since
        return {"unknown": True}, []
    return {}, opened.run(blobs)


def _close(sessions: dict[int, Any], header: dict[str, Any], blobs: list[Blob]) -> Answer:
    sessions.pop(header["session"], None)
    return {}, []


_VERBS = {"about": _about, "build": _build, "open": _open, "run": _run, "close": _close}
