"""A real mosquitto as a child process on a free loopback port."""

from __future__ import annotations

import contextlib
import getpass
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

BINARY = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
MISSING = "mosquitto is not installed: apt-get install mosquitto mosquitto-clients"


def free_port() -> int:
    """A port that was free a moment ago, below those that the system gives to connections.

    Among those, a client that tries again while nobody listens may connect to itself.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")


class Mosquitto:
    """One broker; the same port and files through restarts."""

    def __init__(self, folder: Path, *, persistence: bool = False, lines: tuple[str, ...] = ()):
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        settings = [
            f"listener {self.port} 127.0.0.1",
            f"user {getpass.getuser()}",
            "set_tcp_nodelay true",
            "max_inflight_messages 0",
            "max_queued_messages 0",
            *lines,
        ]
        if not any(line.startswith("allow_anonymous") for line in lines):
            settings.append("allow_anonymous true")
        if persistence:
            settings += [
                "persistence true",
                f"persistence_location {folder}/",
                "autosave_on_changes true",
                "autosave_interval 1",
            ]
        self._config.write_text("\n".join(settings) + "\n")

    @property
    def url(self) -> str:
        """The address as the transport takes it."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it listens."""
        assert BINARY is not None, MISSING
        with self._log.open("ab") as log:
            argv = [BINARY, "-c", str(self._config)]
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.01)
        raise RuntimeError(f"mosquitto does not start: {self._log.read_text()[-2000:]}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait for its end."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def restart(self, how: signal.Signals) -> None:
        """End it so, and start it again at once."""
        self.stop(how)
        self.start()

    def cpu_s(self) -> float:
        """Processor time that it has used."""
        import psutil

        assert self._process is not None
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
