"""Parameters and limits that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from autoglm.config import AdaptConfig

Source = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=".onnx, .pt2, TorchScript .pt, a Hugging Face folder, or a bundle",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")]
Html = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE.html", help="Write one self-contained HTML page."),
]
_RESERVE = 0.9


def verb(command: Callable[..., int]) -> Callable[..., int]:
    """A command whose stdout carries its result and nothing else."""

    @functools.wraps(command)
    def wrapper(*args: Any, **values: Any) -> int:
        from autoglm.cli.output import reserved_stdout

        with reserved_stdout():
            return command(*args, **values)

    return wrapper


@contextmanager
def limits(config: AdaptConfig, *, as_json: bool) -> Iterator[None]:
    """End the command with one line once it passes its time or memory, even inside an engine."""
    from autoglm.cli.output import finish, show_error
    from autoglm.errors import LimitError
    from autoglm.runtime.watchdog import watchdog

    def report(error: LimitError) -> None:
        show_error(error, as_json=as_json)
        finish()

    memory = config.memory_limit_bytes or int(free_bytes() * _RESERVE) or None
    with watchdog(config.timeout_s, memory, report=report):
        yield


def free_bytes() -> int:
    """Memory that this process may still take: the machine's, or its container's; 0 = not known."""
    machine = _meminfo().get("MemAvailable", 0) * 1024
    group = Path("/sys/fs/cgroup")
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    return min(machine, max(limit - used, 1)) if limit and machine else machine


def _meminfo() -> dict[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return {}
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def _number(path: Path) -> int:
    try:
        text = path.read_text("ascii").strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def backend_names(words: Sequence[str]) -> tuple[str, ...]:
    """Names given one by one or with commas."""
    return tuple(name.strip() for word in words for name in word.split(",") if name.strip())
