"""Try native code on a stranger's model in a forked child first: onnx's C++ aborts on some.

A crash there would end this process without a word. The child is a copy-on-write fork that touches
nothing but onnx, so it costs milliseconds; what it computes is thrown away.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import time
from collections.abc import Callable

from autoglm.errors import LimitError, ModelError
from autoglm.toolchain import ending

_SECONDS = 60.0
_MEMORY_BYTES = 2 << 30  # beyond what this process already maps
_OUT_OF_MEMORY = 3


def survive(what: str, call: Callable[[], object], *, seconds: float = _SECONDS) -> None:
    """Run `call` in a child; ModelError where it crashes, LimitError where it does not end.

    An exception in the child is not an error here: the caller runs `call` itself and meets it.
    """
    pid = os.fork()
    if pid == 0:
        _child(call, seconds)
    status = _wait(pid, seconds)
    if status is None:
        raise LimitError(
            "{what} does not end within {seconds} s on this model.",
            hint="The model may be made to exhaust its reader; export it again.",
            what=what,
            seconds=round(seconds),
        )
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        raise LimitError(
            "{what} does not end within {seconds} s.", what=what, seconds=round(seconds)
        )
    if os.WIFSIGNALED(status):
        raise ModelError(
            "{what} crashes on this model ({signal}).",
            hint="Some node's attributes contradict its inputs: export the model again.",
            what=what,
            signal=ending(-os.WTERMSIG(status)).removeprefix("signal "),
        )
    if os.WEXITSTATUS(status) == _OUT_OF_MEMORY:
        raise LimitError(
            "{what} needs more than {limit} bytes on this model.", what=what, limit=_MEMORY_BYTES
        )


def _child(call: Callable[[], object], seconds: float) -> None:
    code = 0
    try:
        faulthandler.disable()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _lower(resource.RLIMIT_CPU, int(seconds) + int(time.process_time()) + 1)
        _lower(resource.RLIMIT_AS, _mapped_bytes() + _MEMORY_BYTES)
        call()
    except MemoryError:
        code = _OUT_OF_MEMORY
    except BaseException:  # the parent meets it again and reports it
        code = 0
    finally:
        os._exit(code)


def _lower(limit: int, value: int) -> None:
    soft, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    if soft == resource.RLIM_INFINITY or value < soft:
        resource.setrlimit(limit, (value, hard))


def _mapped_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _wait(pid: int, seconds: float) -> int | None:
    end, pause = time.monotonic() + seconds, 0.0005
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None
