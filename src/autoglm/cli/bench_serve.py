"""`autoglm bench-serve`: how many requests a server answers, how fast, and whether right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from autoglm.cli.common import Debug, Json, verb
from autoglm.cli.options import shapes
from autoglm.cli.remote import Server, connected
from autoglm.serve.load.target import PROTOCOLS, SCHEMES

if TYPE_CHECKING:
    from autoglm.serve.load.run import Report

_MOST = 4096  # connections at once
Model = Annotated[
    str, typer.Option("--model", metavar="NAME", help="May be left out where one is served.")
]
Version = Annotated[str, typer.Option("--version", metavar="N", help="A number, alias or label.")]
Concurrency = Annotated[
    str, typer.Option("--concurrency", metavar="N,…", help="Questions under way at once.")
]
Seconds = Annotated[float, typer.Option("--seconds", min=0.1, help="For each concurrency.")]
Chosen = Annotated[
    str,
    typer.Option("--protocol", metavar="|".join(PROTOCOLS), help="Without it: the URL's default."),
]
Inputs = Annotated[
    str, typer.Option("--inputs", metavar="FILE", help=".npz, .npy, .json; without: random.")
]
Shape = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=1,128", help="Of a random input; open sizes are 1."),
]
Seed = Annotated[int, typer.Option("--seed", help="Of random inputs.")]
Timeout = Annotated[float, typer.Option("--timeout-s", min=0.1, help="Of one question.")]


def bench_serve(
    server: Server,
    model: Model = "",
    version: Version = "",
    concurrency: Concurrency = "1,16,64",
    seconds: Seconds = 5.0,
    protocol: Chosen = "",
    inputs: Inputs = "",
    shape: Shape = None,
    seed: Seed = 0,
    timeout_s: Timeout = 30.0,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Load a running server, ours or any of the Open Inference Protocol: each client asks again as
    soon as it is answered.

    Every answer is compared with the first. 0: all were right; 1: some were not.
    """
    from autoglm.cli.output import emit_json, progress
    from autoglm.serve.load.run import Asking, measure
    from autoglm.serve.load.target import Target

    target = Target(server.url, model, version, protocol, server.api_key, server.ca, timeout_s)
    asking = Asking(levels(concurrency), seconds, inputs, sizes(shape or []), seed)
    with progress("asking") as step:
        report = measure(target, asking, step=step)
    if json:
        emit_json(report.to_dict())
    else:
        show(report)
    return 0 if report.right else 1


def levels(text: str) -> tuple[int, ...]:
    """The concurrencies in `1,16,64`."""
    from autoglm.cli.app import UsageError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word[:9]) <= _MOST for word in words):
        raise UsageError(
            "--concurrency takes whole numbers from 1 to {most} with commas; found {found!r}.",
            most=_MOST,
            found=text,
        )
    return tuple(map(int, words))


def sizes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The shapes in `NAME=1,128`."""
    from autoglm.cli.app import UsageError

    found = shapes(texts)
    for text, (name, dims) in zip(texts, found.items(), strict=False):
        if not name or not all(isinstance(d, int) and d >= 0 for d in dims):
            raise UsageError("--shape takes NAME=1,128; found {found!r}.", found=text)
    return {name: tuple(int(d) for d in dims) for name, dims in found.items()}


def show(report: Report) -> None:
    """A row for each concurrency, then what went wrong, and where the generator was the limit."""
    from autoglm.cli.output import console, note, printable
    from autoglm.cli.terminal import table
    from autoglm.cli.words import size
    from autoglm.messages import tr

    told = ", ".join(f"{name} {kind}" for name, kind in report.inputs.items())
    target = report.target
    console().print(printable(f"{target.model} @ {target.shown} ({target.protocol}): {told}"))
    rows = [
        (
            load.concurrency,
            f"{load.per_s:.5g}",
            *(f"{ms:.3g}" for ms in (load.p50_ms, load.p90_ms, load.p99_ms, load.max_ms)),
            load.errors or "",
            size(load.sent_bytes),
            size(load.received_bytes),
            f"{load.generator_busy:.0%}",
        )
        for load in report.loads
    ]
    times = (f"p{p} ms>" for p in (50, 90, 99))
    columns = (tr("at once") + ">", tr("requests/s") + ">", *times, tr("max ms") + ">")
    more = (tr("errors"), tr("sent"), tr("received"), tr("generator busy"))
    table("", (*columns, *(f"{name}>" for name in more)), rows)
    for text in report.unfit:
        note(tr("wrong: {text}", text=text))
    for load in report.loads:
        for code, fault in load.faults.items():
            note(f"{load.concurrency}: {fault.count} × {code}: {fault.message}")
    if limited := [str(load.concurrency) for load in report.loads if load.limited]:
        note(
            tr(
                "At {levels} at once this generator itself was the limit; the server may do more.",
                levels=", ".join(limited),
            )
        )


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench-serve")(verb(connected(bench_serve, schemes=SCHEMES)))
