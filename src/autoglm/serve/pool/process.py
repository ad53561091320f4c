"""An engine in a process of its own: its crash costs a request, not the server; and one that hangs
can be ended.

`python -m autoglm.serve.pool.process OPTIONS FOLDER MEMORY PIPE` is that process; `IsolatedSession`
asks it. Tensors cross in memory that both see (`shared`), questions and answers over the pipe.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from autoglm import errors
from autoglm.errors import AutoGLMError, DeadlineError, ExecutionError
from autoglm.serve.pool.shared import Shared
from autoglm.serve.pool.wire import decode, encode
from autoglm.spec import Closing, Feeds, Value
from autoglm.toolchain.service import ANSWER, Service

_OPEN_S = 600.0
_KINDS: dict[str, type[AutoGLMError]] = {
    c.code: c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, AutoGLMError)
}


class IsolatedSession(Closing):
    """A bundle's session in a child; a dead child is started again by the next question."""

    def __init__(self, folder: Path, *, device: str = "", threads: int = 0) -> None:
        self.run_s = _OPEN_S  # a run that takes longer ends the child
        self._place = Path(tempfile.mkdtemp(prefix="autoglm-engine-"))
        self._shared = Shared()
        self._lock = threading.Lock()
        options = json.dumps({"device": device, "threads": threads})
        argv = [sys.executable, "-m", __name__, options, str(folder), str(self._shared.fd)]
        self._service = Service(argv, log=self._place / "engine.log", pass_fds=(self._shared.fd,))
        self._open = False  # whether the child has the bundle open
        try:
            with self._lock:
                facts = self._opened()
        except BaseException:
            self.close()
            raise
        self.engines: tuple[str, ...] = tuple(facts["engines"])

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once in the child; calls from several threads take turns."""
        with self._lock:
            if not self._open:
                self._opened()
            return self._ask(feeds, "run", self.run_s)[0]

    def close(self) -> None:
        """End the child, also while it runs; may be called twice."""
        self._service.close()
        with self._lock:
            self._shared.close()
        shutil.rmtree(self._place, ignore_errors=True)

    def _opened(self) -> dict[str, Any]:
        """Have it open the bundle, which may take longer than a run."""
        facts = self._ask({}, "about", _OPEN_S)[1]
        self.pid = int(facts["pid"])
        self._open = True
        return facts

    def _ask(
        self, feeds: Feeds, verb: str, timeout_s: float
    ) -> tuple[dict[str, Value], dict[str, Any]]:
        question = encode(feeds, self._shared, facts={"verb": verb})
        begin = time.monotonic()
        try:
            reply = self._service.ask(question, timeout_s=timeout_s)
        except BaseException as error:
            self._open = False  # the next child starts from the beginning
            if isinstance(error, ExecutionError) and time.monotonic() - begin > timeout_s:
                raise DeadlineError(
                    "The engine gave no answer within {limit:g} s; its process was ended.",
                    hint="--run-timeout-s sets how long a run may take.",
                    limit=timeout_s,
                ) from error
            raise
        values, facts, _ = decode(reply, self._shared, copy=True)
        self._shared.trim()
        if "error" in facts:
            kind = _KINDS.get(facts["code"], ExecutionError)
            raise kind("{reason}", reason=facts["error"])
        return values, facts


def serve(options: str, folder: str, shared: Shared, pipe: Connection) -> None:
    """Answer questions until the server hangs up."""
    from autoglm import api

    opening: Callable[..., Any] = api.open
    facts: dict[str, Any] = {"pid": os.getpid()}
    session: Any = None
    while True:
        try:
            feeds, asked, end = decode(pipe.recv_bytes(), shared, copy=False)
        except EOFError:
            return
        answer = b""
        try:
            session = session or opening(folder, verify="size", **json.loads(options))
            values = session.run(feeds) if asked["verb"] == "run" else {}
            told = {**facts, "engines": list(session.engines)}
            # Behind the question: an output may be an input, as it is.
            answer = encode(values, shared, begin=end, facts=told)
        except AutoGLMError as error:
            answer = _refusal(error.code, str(error), shared, facts)
        except Exception as error:  # an engine may raise anything; its text is the answer
            answer = _refusal("execution", f"{type(error).__name__}: {error}", shared, facts)
        pipe.send_bytes(ANSWER + answer)


def _refusal(code: str, text: str, shared: Shared, facts: dict[str, Any]) -> bytes:
    return encode({}, shared, facts={**facts, "error": text, "code": code})


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        serve(sys.argv[1], sys.argv[2], Shared(int(sys.argv[3])), Connection(int(sys.argv[4])))
