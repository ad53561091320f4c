"""`autoglm run`: a bundle or a model, inputs in, outputs out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoglm.cli.common import Debug, Json, Source, limits, verb
from autoglm.cli.options import Adapt, configurable

if TYPE_CHECKING:
    from autoglm.config import AdaptConfig
    from autoglm.spec import Feeds, Session

Outputs = Annotated[
    Path | None,
    typer.Option("--outputs", "-o", metavar="FILE", help="Write outputs: .npz, .npy, .json, raw."),
]
Random = Annotated[bool, typer.Option("--random", help="Seeded random inputs.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the random inputs.")]
Dim = Annotated[
    list[str] | None,
    typer.Option("--dim", metavar="NAME=SIZE", help="Size of a named dimension, for --random."),
]


@configurable()
def run(
    model: Source,
    adapt: Adapt,
    outputs: Outputs = None,
    random: Random = False,
    seed: Seed = 0,
    dim: Dim = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Run a bundle or a model once.

    Prints a summary of what came out; --outputs writes it to a file.

    Inputs are files of arrays by tensor name (.npz, .json), one array (.npy), or NAME.raw bytes.
    """
    from autoglm import api
    from autoglm.cli.output import emit_json, note, progress
    from autoglm.cli.result import summary
    from autoglm.messages import tr

    config = adapt.config()
    with (
        limits(config, as_json=json),
        progress("opening") as step,
        api.open(model, config) as session,
    ):
        given = feeds(session, config, random, seed, dim or [])
        step("running")
        values = session.run(given)
        remarks = session.remarks
    if outputs is not None:
        from autoglm.tensor.disk import save_arrays

        save_arrays(outputs, values)
    facts = {name: summary(value) for name, value in values.items()}
    if json:
        file = str(outputs) if outputs else None
        emit_json({"outputs": facts, "file": file, "notes": list(remarks)})
    else:
        from autoglm.cli.terminal import show_outputs

        show_outputs(facts, outputs)
        for remark in remarks:
            note(tr("note: {text}", text=remark))
    return 0


def feeds(session: Session, config: AdaptConfig, random: bool, seed: int, dims: list[str]) -> Feeds:
    """The inputs asked for: a file's, or seeded random ones."""
    if random or not config.inputs:
        return random_or_refuse(session, random, seed, dims)
    from autoglm.tensor.disk import load_arrays

    return load_arrays(config.inputs, session.inputs)


def random_or_refuse(session: Session, random: bool, seed: int, dims: list[str]) -> dict[str, Any]:
    """Seeded random inputs where they were asked for; a model without inputs needs none."""
    from autoglm.cli.app import UsageError
    from autoglm.tensor.disk import random_feeds

    if not random and session.inputs:
        raise UsageError(
            "This model takes {names}: give --inputs FILE, or --random.",
            names=", ".join(info.name for info in session.inputs),
        )
    sizes = {name: size for name, _, size in (text.partition("=") for text in dims)}
    wrong = [text for text in dims if not text.partition("=")[2].isdigit()]
    if wrong:
        raise UsageError("--dim takes NAME=SIZE, found {found}.", found=", ".join(wrong))
    return dict(random_feeds(session.inputs, seed, {name: int(s) for name, s in sizes.items()}))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verb(run))
