"""Where traces go: lines of a file, or an OTLP collector; by one thread, never by a request."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LOG = logging.getLogger("autoglm.serve.telemetry")
_MOST_WAITING = 2000
_TIMEOUT_S = 5.0


class Writer:
    """Hands traces to sinks in a thread; what does not fit the queue is dropped and counted."""

    def __init__(self, sinks: list[Callable[[bytes], None]]) -> None:
        self._sinks = sinks
        self._waiting: queue.Queue[Callable[[], dict[str, Any]] | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._failing: set[int] = set()
        self.dropped = 0
        self.written = 0

    def put(self, make: Callable[[], dict[str, Any]]) -> None:
        """Never waits; the trace is made in the thread too."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(make)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, for at most `timeout_s`; may be called twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        end = time.monotonic() + timeout_s
        with contextlib.suppress(queue.Full):  # a sink that hangs holds nobody up for longer
            self._waiting.put(None, timeout=timeout_s)
        thread.join(max(end - time.monotonic(), 0.0))

    def _work(self) -> None:
        while (make := self._waiting.get()) is not None:
            try:
                line = json.dumps(make(), separators=(",", ":")).encode() + b"\n"
            except Exception:  # one trace less, and not every trace after it
                _LOG.exception("a mistake of ours in a trace")
                self.dropped += 1
                continue
            kept = [self._give(number, sink, line) for number, sink in enumerate(self._sinks)]
            self.written += any(kept)
            self.dropped += not any(kept)

    def _give(self, number: int, sink: Callable[[bytes], None], line: bytes) -> bool:
        try:
            sink(line)
        except (OSError, ValueError, http.client.HTTPException) as error:
            if number not in self._failing:
                # Once an outage, and without a URL: it may hold a password.
                _LOG.warning("traces cannot be written: %s", type(error).__name__)
                self._failing.add(number)
            return False
        self._failing.discard(number)
        return True


def file_sink(path: Path, max_bytes: int) -> Callable[[bytes], None]:
    """Appends lines; a full file becomes `NAME.1`, so that at most twice `max_bytes` are kept."""

    def write(line: bytes) -> None:
        if path.exists() and path.stat().st_size + len(line) > max_bytes:
            path.replace(path.with_name(path.name + ".1"))
        with path.open("ab") as sink:
            sink.write(line)

    return write


def otlp_sink(endpoint: str) -> Callable[[bytes], None]:
    """Posts to `endpoint`/v1/traces, an http or https URL that the operator configured."""
    url = endpoint.rstrip("/") + "/v1/traces"
    if not url.startswith(("http://", "https://")):
        raise ValueError("an OTLP endpoint is an http:// or https:// URL")

    def post(line: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, line, headers, method="POST")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:
            reply.read(1 << 16)

    return post
