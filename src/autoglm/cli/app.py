"""The command's frame: the verbs, and one line and one status for every way to fail."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from autoglm.errors import AutoGLMError
from autoglm.messages import set_language
from autoglm.settings import Settings

INTERRUPTED = 130
TERMINATED = 143
BROKEN_PIPE = 141
_UsageError: Any = typer.BadParameter.__mro__[1]
_ClickError: Any = _UsageError.__mro__[1]


class UsageError(AutoGLMError):
    """The command line does not parse."""

    code = "usage"


class InternalError(AutoGLMError):
    """A mistake of ours."""


app = typer.Typer(
    name="autoglm",
    help="One model in, the best plan out: what runs where, why, at what price, with proof.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from autoglm import __version__
        from autoglm.cli.output import stdout

        stdout().write(f"autoglm {__version__}\n")
        raise typer.Exit


def _register() -> None:
    from autoglm.cli import (
        audit,
        bench,
        bench_serve,
        check,
        compile,
        config,
        doctor,
        hotspots,
        inspect,
        keys,
        machine,
        models,
        ops,
        route,
        run,
        serve,
        toolchain,
    )

    adapting = (check, compile, run, inspect, bench, ops, config)
    serving = (serve, keys, models, route, bench_serve, hotspots)
    for module in (*adapting, machine, doctor, audit, toolchain, *serving):
        module.register(app)


_register()


def invoke(arguments: Sequence[str]) -> int:
    """Run one command; the exit status. Never raises for anything the user did."""
    from autoglm.cli.output import drop_stdout, finish, show_error

    settings = Settings.read()
    set_language(settings.language)
    words = list(arguments) or ["--help"]
    as_json = "--json" in words
    # Ended from outside, a command unwinds as it does for an error: temporary folders go.
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        status = _call(words)
        finish()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return INTERRUPTED
    except BrokenPipeError:
        drop_stdout()
        return BROKEN_PIPE
    except AutoGLMError as error:
        if settings.debug or "--debug" in words:
            _traceback()
        return _show(show_error, error, as_json)
    except Exception as error:  # the last net: our own mistakes, and what no engine should raise
        if settings.debug or "--debug" in words:
            _traceback()
        return _show(show_error, _internal(error), as_json)
    return status


def _call(words: list[str]) -> int:
    try:
        result = app(args=words, prog_name="autoglm", standalone_mode=False)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except typer.Exit as stop:
        return int(stop.exit_code)
    except _ClickError as error:
        hint = "`{command} --help` lists what it takes."
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "autoglm"
        reason = " ".join(error.format_message().split())
        raise UsageError("{reason}", hint=hint, reason=reason, command=command) from error
    return result if isinstance(result, int) else 0


def _show(show: Any, error: AutoGLMError, as_json: bool) -> int:
    from autoglm.cli.output import drop_stdout, finish

    try:
        show(error, as_json=as_json)
        finish()
    except BrokenPipeError:
        drop_stdout()
    return error.row.exit


def _traceback() -> None:
    import traceback

    traceback.print_exc(file=sys.stderr)


def _internal(error: Exception) -> AutoGLMError:
    if isinstance(error, MemoryError):
        from autoglm.errors import LimitError

        return LimitError("Not enough memory.", hint="Give smaller input shapes.")
    text = " ".join(str(error).split())[:300] or "no message"
    return InternalError(
        "{kind}: {text}",
        hint="This is a mistake of ours: run it again with --debug and report what it prints.",
        kind=type(error).__name__,
        text=text,
    )
