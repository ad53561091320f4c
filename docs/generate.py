"""Write the pages that are made from the code: `make generate`. A test compares them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoglm import registry
from autoglm.catalog.packs import read_pack, shipped
from autoglm.config import AdaptConfig, Budget, Problem, json_schema
from autoglm.errors import TABLE, AutoGLMError
from autoglm.keys import KEYS
from autoglm.testing.conformance import Level
from autoglm.testing.verify import LADDER, Record, read_records

HERE = Path(__file__).parent
RECORDS = HERE / "support"
OUTCOMES = ("yes", "refused", "imprecise", "wrong")
REMARK = "<!-- made by docs/generate.py; change the code, then `make generate` -->\n"


def main() -> int:
    """Write every generated page, and the README's table."""
    for name, text in pages().items():
        (HERE / name).write_text(text, "utf-8")
    readme = HERE.parent / "README.md"
    readme.write_text(filled(readme.read_text("utf-8"), "support", support_table()), "utf-8")
    return 0


def filled(text: str, mark: str, body: str) -> str:
    """`text` with `body` between the marks of that name."""
    before, rest = text.split(f"<!-- {mark}:begin", 1)
    opening, rest = rest.split("-->", 1)
    _, after = rest.split(f"<!-- {mark}:end", 1)
    return f"{before}<!-- {mark}:begin{opening}-->\n{body}<!-- {mark}:end{after}"


def support_table() -> str:
    """How far each backend is verified, and what frontends read."""
    rows = [[link(name, "docs/"), verified(name), operators(name)] for name in built_in()]
    return (
        f"{table(['backend', 'verified', 'operators measured right'], rows)}\n"
        "How that was found out, and the counts: [support](docs/support.md).\n\n"
        "Models: ONNX from opset 6 to the newest of the installed onnx; `torch.export` programs "
        "(`.pt2`), TorchScript files and modules through PyTorch; Hugging Face folders of "
        "encoders without torch (the BERT family), others through transformers; TensorFlow "
        "SavedModel, Keras and TFLite files, Paddle programs and MindSpore's MindIR, each in an "
        "[environment of its own](docs/frontends.md).\n"
    )


def built_in() -> list[str]:
    """The backends of this repository."""
    plugs = registry.backends().items()
    return [name for name, plug in plugs if type(plug).__module__.startswith("autoglm.")]


def link(name: str, folder: str = "") -> str:
    """The backend's name, leading to its page where it has one."""
    there = (HERE / f"backends/{name}.md").exists()
    return f"[{name}]({folder}backends/{name}.md)" if there else name


def verified(name: str) -> str:
    """The furthest that any record of the backend says."""
    order = (None, *LADDER)
    records = read_records(RECORDS).get(name, [])
    best = max(records, key=lambda r: order.index(highest(r)), default=None)
    return stage(best) if best is not None else "declared, not run on the real tool"


def highest(record: Record) -> Level | None:
    """The highest level that any cell reached."""
    return next((rung for rung in reversed(LADDER) if record.reached(rung)), None)


def stage(record: Record) -> str:
    """The level in words, with what it was reached on."""
    level = highest(record)
    if level is None:
        by_pack = record.toolkit and operators(record.backend) != "-"
        return "ran, operator by operator" if by_pack else "none of these models is in its table"
    if level is not Level.RAN:
        return str(level) if record.toolkit else f"{level}, not run on the real tool"
    if record.device:
        return f"ran on device: {record.device}"
    return f"ran on simulator: {record.simulator}" if record.simulator else "ran on the host's CPU"


def operators(name: str) -> str:
    """Operators with a right answer in the newest shipped pack."""
    counts = [outcomes(path)[0] for path in shipped(name).values()]
    return str(max(counts)) if counts else "-"


def outcomes(path: Path) -> tuple[int, list[int]]:
    """Operators with at least one right answer, and the rows of a pack by outcome."""
    found = [(op, row.outcome) for op, _, row in read_pack(path).rows()]
    single = {op for op, outcome in found if outcome == "yes" and "+" not in op}
    return len(single), [sum(outcome == kind for _, outcome in found) for kind in OUTCOMES]


def support_page() -> str:
    """What was verified, by level, and the packs' counts."""
    records = read_records(RECORDS)
    climbs, packs = [], []
    for name in built_in():
        for record in records.get(name, []):
            counts = [f"{record.reached(level)} of {len(record.cells)}" for level in LADDER]
            tool = record.toolkit or "not here"
            climbs.append([link(name), record.table, tool, *counts, stage(record)])
        if name not in records:
            climbs.append([link(name), *[""] * 6, verified(name)])
        for version, path in sorted(shipped(name).items()):
            taken, rows = outcomes(path)
            packs.append([link(name), version, str(taken), *map(str, rows)])
    head = ["backend", "table", "toolkit", *map(str, LADDER), "verified"]
    measured = ["backend", "measured with", "operators", "right", "refused", "imprecise", "wrong"]
    return f"""{REMARK}
# What is verified

Chains and tiny whole models climb towards the device, each in a process of its own:
`python -m autoglm.testing.verify -o docs/support [BACKEND …]` writes what happened, and this page
is made from that. **declared**: the table takes every node, decomposed where it has to be.
**lowered**: as decomposed for this backend it still answers rightly. **compiled**: the real tool
took it. **ran**: the answer is right within the tolerance of the precision. Where the vendor's tool
was not here, nothing gets beyond lowered.

{table(head, climbs)}
## Operators measured

Written by `autoglm ops measure`: operators with at least one right answer, then rows of the tables
(operator, version, dtypes, limits) by outcome. What answers wrongly is a no.

{table(measured, packs)}"""


def pages() -> dict[str, str]:
    """File name -> content."""
    return {
        "config.schema.json": json.dumps(json_schema(), indent=2) + "\n",
        "config.md": config_page(),
        "cli.md": cli_page(),
        "errors.md": errors_page(),
        "support.md": support_page(),
    }


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |\n" for r in lines
    )


def config_page() -> str:
    """Every key: what it takes, its default, what it means."""
    from autoglm.cli.options import OPTIONS

    flags = {option.key: ", ".join(f"`{flag}`" for flag in option.all_flags) for option in OPTIONS}
    schema = json_schema()
    budget = schema["$defs"]["Budget"]["properties"]
    rows = []
    for name in AdaptConfig.model_fields:
        if name == "budget":
            rows += [row(f"budget.{key}", budget[key], flags) for key in Budget.model_fields]
        else:
            rows.append(row(name, schema["properties"][name], flags))
    return f"""{REMARK}
# The adaptation config

One table, as JSON, YAML or TOML; `autoglm check MODEL --config adapt.json`. Every key is also an
option of `check`, `compile`, `run` and `bench`, and an option outweighs the file. The
[JSON Schema](config.schema.json) is what `autoglm config schema` prints.

```json
{{"backend": "sophon", "precision": "int8", "fallback_policy": "cpu", "memory_alignment": 64}}
```

`autoglm config validate FILE` names every mistake at once; `autoglm config show` prints what is in
force. Files are read without surprises: no key twice, no YAML tags, at most 16 aliases, at most
256 KiB. No text may begin with `-`, for vendor compilers are started with these texts.

{table(["key", "takes", "default", "option", "meaning"], rows)}"""


def row(key: str, schema: dict[str, Any], flags: dict[str, str]) -> list[str]:
    """One key's line."""
    return [f"`{key}`", takes(schema), f"`{default(schema)}`", flags[key], KEYS[key]]


def default(schema: dict[str, Any]) -> str:
    """The default as JSON."""
    kind = "{}" if schema.get("type") == "object" else "null"
    return json.dumps(schema["default"]) if "default" in schema else kind


def takes(schema: dict[str, Any]) -> str:
    """The type in words."""
    if "anyOf" in schema:
        return " or ".join(takes(s) for s in schema["anyOf"] if s.get("type") != "null")
    if "enum" in schema and schema["type"] == "string":
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {takes(schema['items'])}"
    if schema["type"] == "object":
        return f"table of {takes(schema['additionalProperties'])}"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
    }
    return words[schema["type"]] + limits(schema)


def limits(schema: dict[str, Any]) -> str:
    """Bounds worth reading."""
    if "enum" in schema:
        return ", a power of two up to 2 MiB"
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum")
    found = [f"from {low}"] if low is not None and "minimum" in schema else []
    found += [f"above {low}"] if "exclusiveMinimum" in schema else []
    found += [f"to {high}"] if high is not None else []
    return " " + " ".join(found) if found else ""


def commands(group: Any, path: str = "autoglm") -> Iterator[tuple[str, Any]]:
    """Every command with its path."""
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")


def cli_page() -> str:
    """Every command and option, as the parser has them."""
    import typer.main

    from autoglm.cli.app import app

    parts = []
    for path, command in commands(typer.main.get_command(app)):
        own = [p for p in command.params if not p.name.startswith("adapt_")]
        configurable = len(own) < len(command.params)
        names = [p.metavar or p.human_readable_name for p in own if p.param_type_name == "argument"]
        parts.append(f"## `{' '.join([path, *names])}`\n\n{(command.help or '').strip()}\n\n")
        rows = [
            [", ".join(f"`{o}`" for o in (*p.opts, *p.secondary_opts)), p.help or ""]
            for p in own
            if p.param_type_name == "option" and p.name != "help"
        ]
        parts.append(table(["option", "meaning"], rows) + "\n" if rows else "")
        if configurable:
            parts.append(
                "Every key of the [adaptation config](config.md) is an option as well.\n\n"
            )
    return f"""{REMARK}
# The command line

`--json` prints the result as JSON on stdout, also an error's; logs and progress go to stderr.
Exit statuses are in [the error table](errors.md); `check` ends with 0 (fits), 1 (fits with
fallbacks) or 2 (does not fit). `AUTOGLM_LANG=zh` speaks Chinese, `NO_COLOR` is honoured,
`AUTOGLM_CACHE_DIR` (else `XDG_CACHE_HOME`) says where the cache lies,
`autoglm --install-completion` installs shell completion.

{"".join(parts).rstrip()}
"""


def errors_page() -> str:
    """Every code on each wire, and what it means."""
    kinds = {kind.code: kind for kind in subclasses(AutoGLMError)}
    said = {
        "internal": "A mistake of ours.",
        "usage": "The command line does not parse.",
    }
    rows = [
        [
            f"`{code}`",
            str(line.exit),
            str(line.http),
            line.grpc,
            said.get(code) or (kinds[code].__doc__ or "").strip().splitlines()[0],
        ]
        for code, line in TABLE.items()
    ]
    problem = Problem("threads", "'two'", "a whole number")
    example = (
        f"error[config]: options: {problem}\n"
        "hint: `autoglm config schema` prints every key with what it allows."
    )
    return f"""{REMARK}
# Errors

Every failure has one stable code; one table maps it to the exit status of the command, the HTTP
status and the gRPC status. On the command line it is one line, and one with the way on:

```
{example}
```

`--json` prints the same as `{{"error": {{"code", "message", "hint", "exit", "facts"}}}}`, `--debug`
(or `AUTOGLM_DEBUG=1`) adds the traceback. Statuses from 64 follow sysexits.h. An interrupt ends
with 130, a reader that goes away (`| head`) with 141.

{table(["code", "exit", "HTTP", "gRPC", "meaning"], rows)}"""


def subclasses(kind: type[AutoGLMError]) -> Iterator[type[AutoGLMError]]:
    """A class and all below it, in the product's error tree."""
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == "autoglm.errors":
            yield from subclasses(below)


if __name__ == "__main__":
    sys.exit(main())
