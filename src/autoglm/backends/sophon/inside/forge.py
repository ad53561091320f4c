"""Runs in the toolchain's own Python, which need not be ours: imports TPU-MLIR once and runs each
of its command-line tools in a fork, as if it had been called from a shell.

A question is JSON: argv (the tool's path first), cwd, log, timeout_s. The answer is JSON: status.
"""

import contextlib
import json
import os
import runpy
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

# What the tools import first and that takes seconds; one that is not there costs only its time.
_SLOW = ("numpy", "onnx", "onnxruntime", "onnxsim", "pymlir", "mlir.ir", "transform.OnnxConverter")


def main() -> None:
    pipe = Connection(int(sys.argv[-1]))
    for name in _SLOW:
        try:
            __import__(name)
        except Exception as error:
            print(f"{name} was not imported ahead: {error}", flush=True)
    while True:
        try:
            question = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        pipe.send_bytes(b"+" + json.dumps({"status": run(question, pipe)}).encode())


def run(question: dict[str, Any], pipe: Connection) -> int:
    """The tool's status: its exit status, minus a signal's number, or -14 (SIGALRM) when late."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        pipe.close()
        os.setpgid(0, 0)
        status = 70
        try:
            status = tool(question)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    end = time.monotonic() + question["timeout_s"]
    while True:
        done, found = os.waitpid(child, os.WNOHANG)
        if done:
            kill_group(child)  # what it started and left
            return os.waitstatus_to_exitcode(found)
        gone = pipe.poll()  # nothing is asked while we work: whoever asked has died
        if gone or time.monotonic() > end:
            kill_group(child)
            os.waitpid(child, 0)
            return -signal.SIGALRM
        time.sleep(0.005)


def kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def tool(question: dict[str, Any]) -> int:
    """In the fork: the tool itself, with its output in the log."""
    log = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(question["cwd"])
    os.environ["PWD"] = question["cwd"]
    sys.argv = question["argv"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code)
        return 1
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
