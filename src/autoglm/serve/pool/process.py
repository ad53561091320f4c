"""An engine in a process of its own: its crash costs a request, not the server.

`python -m autoglm.serve.pool.process OPTIONS FOLDER FD` is that process; `IsolatedSession` asks it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from autoglm import errors
from autoglm.errors import AutoGLMError, ExecutionError
from autoglm.serve.pool.wire import decode, encode
from autoglm.spec import Closing, Feeds, Value
from autoglm.toolchain.service import ANSWER, Service

_RUN_S = 600.0
_KINDS: dict[str, type[AutoGLMError]] = {
    c.code: c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, AutoGLMError)
}


class IsolatedSession(Closing):
    """A bundle's session in a child; a dead child is started again by the next question."""

    def __init__(self, folder: Path, *, device: str = "", threads: int = 0) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="autoglm-engine-"))
        options = json.dumps({"device": device, "threads": threads})
        argv = [sys.executable, "-m", __name__, options, str(folder)]
        self._service = Service(argv, log=self._place / "engine.log")
        try:
            facts = self._ask({}, "about")[1]
        except BaseException:
            self.close()
            raise
        self.engines: tuple[str, ...] = tuple(facts["engines"])
        self.pid = int(facts["pid"])

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once in the child; calls from several threads take turns."""
        return self._ask(feeds, "run")[0]

    def close(self) -> None:
        """End the child; may be called twice."""
        self._service.close()
        shutil.rmtree(self._place, ignore_errors=True)

    def _ask(self, feeds: Feeds, verb: str) -> tuple[dict[str, Value], dict[str, Any]]:
        reply = self._service.ask(encode(feeds, {"verb": verb}), timeout_s=_RUN_S)
        values, facts = decode(reply)
        self.pid = int(facts.get("pid", 0))
        if "error" in facts:
            kind = _KINDS.get(facts["code"], ExecutionError)
            raise kind("{reason}", reason=facts["error"])
        return values, facts


def serve(options: str, folder: str, pipe: Connection) -> None:
    """Answer questions until the server hangs up."""
    from autoglm import api

    opening: Callable[..., Any] = api.open
    facts: dict[str, Any] = {"pid": os.getpid()}
    session: Any = None
    while True:
        try:
            feeds, asked = decode(pipe.recv_bytes())
        except EOFError:
            return
        values: dict[str, Value] = {}
        answer = dict(facts)
        try:
            session = session or opening(folder, verify="size", **json.loads(options))
            answer["engines"] = list(session.engines)
            if asked["verb"] == "run":
                values = session.run(feeds)
        except AutoGLMError as error:
            answer |= {"error": str(error), "code": error.code}
        except Exception as error:  # an engine may raise anything; its text is the answer
            answer |= {"error": f"{type(error).__name__}: {error}", "code": "execution"}
        pipe.send_bytes(ANSWER + encode(values, answer))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        serve(sys.argv[1], sys.argv[2], Connection(int(sys.argv[3])))
