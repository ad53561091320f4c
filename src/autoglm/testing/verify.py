"""How far a backend is verified: the shipped chains and tiny models climb towards the device.

    python -m autoglm.testing.verify -o docs/support [NAME ...]

One record per backend, written by what happened and never by hand; `docs/support.md` is made from
them. Without the vendor's tool a cell reaches `lowered` at most, and the record says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from autoglm.errors import AutoGLMError, BackendUnavailableError
from autoglm.spec import Backend
from autoglm.testing.cases import Case
from autoglm.testing.conformance import Level, Reached, supports
from autoglm.testing.measure import ask, first_line, load, nodes_of
from autoglm.testing.patterns import patterns
from autoglm.testing.worker import Lost, ask_all

LADDER = (Level.DECLARED, Level.LOWERED, Level.COMPILED, Level.RAN)


@dataclass(frozen=True, slots=True)
class Record:
    """What was verified of one backend, with one version of its toolkit, on one machine's means."""

    backend: str
    toolkit: str  # "" where it was not here
    table: str  # what the capability table holds for
    device: str  # "" where no device of it was here
    simulator: str  # what stands in for a device; "" where nothing does
    cells: Mapping[str, Level]
    reasons: Mapping[str, str]  # of the cells that stopped before `ran`

    def reached(self, level: Level) -> int:
        """How many cells got to `level` or further."""
        order = (Level.REFUSED, *LADDER)
        return sum(order.index(found) >= order.index(level) for found in self.cells.values())


def read_records(folder: Path) -> dict[str, list[Record]]:
    """Every record by backend, one for each version of its toolkit that was here."""
    found: dict[str, list[Record]] = {}
    for path in sorted(folder.glob("*.json")):
        raw = json.loads(path.read_text("utf-8"))
        raw["cells"] = {name: Level(level) for name, level in raw["cells"].items()}
        found.setdefault(raw["backend"], []).append(Record(**raw))
    return found


def write_record(record: Record, folder: Path) -> Path:
    """Write it whole; one made without the toolkit gives way to one made with it."""
    from autoglm.tensor.files import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{'-'.join(filter(None, (record.backend, record.toolkit)))}.json"
    atomic_write(path, (json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n").encode())
    if record.toolkit:
        (folder / f"{record.backend}.json").unlink(missing_ok=True)
    return path


def verify(name: str, *, timeout_s: float = 300.0) -> Record:
    """Climb with every cell, each in a child process that may crash."""
    from autoglm import registry

    plug = registry.backend(name)
    cases = list(patterns())
    target = "autoglm.testing.verify:climber"
    answers = ask_all(target, (name,), cases, timeout_s=timeout_s)
    found = {
        case.name: Reached(Level.LOWERED, f"{answer.kind}: {answer.detail}")
        if isinstance(answer, Lost)
        else answer
        for case, answer in zip(cases, answers, strict=True)
    }
    device, simulator = stages(plug)
    if any(reached.runs_on not in ("", "device") for reached in found.values()):
        device = ""  # one is here, and what was compiled ran elsewhere
    return Record(
        backend=name,
        toolkit=plug.version(),
        table=plug.capabilities().toolkit,
        device=device,
        simulator=simulator,
        cells={cell: reached.level for cell, reached in found.items()},
        reasons={cell: reached.reason for cell, reached in found.items() if reached.reason},
    )


def stages(plug: Backend) -> tuple[str, str]:
    """The device of the backend here and what stands in for one, "" where there is none."""
    found = plug.probe()
    stand_ins = [d.name for d in found if {"simulator", "emulated"} & set(d.facts)]
    devices = [d.name for d in found if d.present and d.name not in stand_ins]
    return next(iter(devices), ""), next(iter(stand_ins), "")


def climber(name: str) -> Callable[[Case], Reached]:
    """What a worker answers with, in the child."""
    from autoglm import registry

    plug = registry.backend(name)
    return lambda case: climb(plug, case)


def climb(plug: Backend, case: Case) -> Reached:
    """How far one cell gets: taken by the table, lowered, compiled by the tool, answered rightly.

    Lowered means that the model as decomposed for this backend still answers rightly, which ONNX
    Runtime is asked.
    """
    from autoglm import registry
    from autoglm.rewrite.legalize import legalize
    from autoglm.rewrite.prepare import prepare

    model, _ = prepare(load(case))
    table = plug.capabilities()
    legalize(model, table.support)
    verdict = supports(table, nodes_of(model))
    if not verdict.ok:
        return Reached(Level.REFUSED, f"{verdict.verdict}: {verdict.reason}")
    lowered = ask(registry.backend("onnxruntime"), model.clone(), case)
    if lowered.outcome != "yes":
        return Reached(Level.DECLARED, f"lowered, it is {lowered.outcome}: {lowered.reason}")
    if not plug.version():
        return Reached(Level.LOWERED, "its toolkit is not installed here")
    try:
        answer = ask(plug, model, case)
    except BackendUnavailableError as error:
        return Reached(Level.LOWERED, first_line(error))
    except Exception as error:  # whatever a vendor's tool raises is where the climb ends
        return Reached(Level.LOWERED, first_line(error))
    if answer.outcome == "yes":
        return Reached(Level.RAN, runs_on=answer.runs_on)
    return Reached(Level.COMPILED, f"{answer.outcome}: {answer.reason}")


def main(argv: list[str] | None = None) -> int:
    """Verify the named backends, or all, and write their records."""
    from autoglm import registry

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("backends", nargs="*")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--timeout-s", type=float, default=300.0, help="for one cell")
    given = parser.parse_args(argv)
    for name in given.backends or registry.backends():
        try:
            record = verify(name, timeout_s=given.timeout_s)
        except AutoGLMError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        counts = ", ".join(f"{level} {record.reached(level)}" for level in LADDER)
        print(f"{name}: {counts} of {len(record.cells)}: {write_record(record, given.output)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
