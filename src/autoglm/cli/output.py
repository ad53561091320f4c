"""Where output goes: results on stdout, everything else on stderr, JSON when asked for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from autoglm.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from autoglm.errors import AutoGLMError

_stdout: TextIO | None = None


def protect_stdout() -> None:
    """Keep stdout for results: what native code prints goes to stderr from here on."""
    try:
        sys.stdout.flush()
        kept = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace", newline="")
        os.dup2(2, 1)
    except OSError:  # a stream is closed; results then go wherever Python sends them
        return
    sys.stdout = kept


@contextmanager
def reserved_stdout() -> Iterator[None]:
    """While a command works, what libraries print goes to stderr; its result alone to stdout."""
    global _stdout
    before, _stdout = _stdout, stdout()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _stdout = before


def stdout() -> TextIO:
    """The stream for results."""
    return _stdout or sys.stdout


def finish() -> None:
    """Flush the results; raises BrokenPipeError where the reader has gone."""
    stdout().flush()


def drop_stdout() -> None:
    """The reader has gone: let nothing else, nor the interpreter's exit, write to it."""
    stream = stdout()
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # captured or already closed: there is nothing to silence
        return


def console(*, error: bool = False) -> Console:
    """A rich console; as wide as the terminal, 120 columns where there is none."""
    from rich.console import Console

    stream = sys.stderr if error else stdout()
    width = None if stream.isatty() else 120
    return Console(
        file=stream,
        width=width,
        no_color=Settings.read().no_color or None,
        highlight=False,
        soft_wrap=False,
        emoji=False,
        markup=False,
    )


def emit_json(value: object) -> None:
    """`value` as JSON on stdout."""
    text = json.dumps(_finite(plain(value)), ensure_ascii=False, indent=2, allow_nan=False)
    stdout().write(text + "\n")


def plain(value: Any) -> Any:
    """`value` in JSON's types; what JSON has no word for becomes its text."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _finite(value: Any) -> Any:
    # JSON has no Infinity (an SQNR of equal answers) and no NaN.
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def show_error(error: AutoGLMError, *, as_json: bool) -> None:
    """One line with the code, one with the way on; or the same as JSON on stdout."""
    if as_json:
        row = {"code": error.code, "message": error.localized(), "hint": error.hint}
        emit_json({"error": {**row, "exit": error.row.exit, "facts": error.facts}})
        return
    lines = [f"error[{error.code}]: {error.localized()}"]
    lines += [f"hint: {error.hint}"] if error.hint else []
    sys.stderr.write("".join(printable(line) + "\n" for line in lines))


def printable(text: str) -> str:
    """`text` without control characters: a hostile model's names must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def note(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(printable(text) + "\n")


@contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """A moving line on stderr that names the current step; nothing where stderr is no terminal."""
    with _bar(title) as update:
        yield lambda step: update(description=printable(step))


@contextmanager
def counter(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr for work that is counted: call it with done and total."""
    with _bar(title) as update:
        yield lambda done, total: update(completed=done, total=total)


@contextmanager
def _bar(title: str) -> Iterator[Callable[..., None]]:
    if not sys.stderr.isatty():
        yield lambda **_: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(24),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(error=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda **facts: bar.update(task, **facts)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    from autoglm.tensor.files import atomic_write

    atomic_write(path, text.encode("utf-8"))
