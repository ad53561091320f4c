"""Every text that a user can meet has a Chinese one, with the same fields."""

from __future__ import annotations

import ast
import json
import string
from collections.abc import Iterator
from pathlib import Path

from autoglm import errors
from autoglm.messages import catalog, set_language, tr

SOURCES = Path(__file__).parents[1] / "src/autoglm"
OURS = {n for n in vars(errors) if n.endswith("Error")} | {"UsageError", "InternalError"}
ZH = catalog("zh")


def texts() -> dict[str, str]:
    """Template -> where it is written."""
    found: dict[str, str] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                for text in spoken(node):
                    found.setdefault(text, f"{path.relative_to(SOURCES)}:{node.lineno}")
    return found


def spoken(call: ast.Call) -> Iterator[str]:
    """The literal templates that a call hands to the user."""
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    hints = [k.value for k in call.keywords if k.arg == "hint"]
    if name in OURS or name == "tr" or (hints and call.args):
        yield from literals(call.args[:1])
        yield from literals(hints)
    if name == "PydanticCustomError":
        yield from literals(call.args[1:2])


def literals(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
            yield node.value
        if isinstance(node, ast.IfExp):
            yield from literals([node.body, node.orelse])


def fields(template: str) -> set[str]:
    parts = string.Formatter().parse(template)
    return {name for _, name, _, _ in parts if name}


def test_every_text_has_a_chinese_one() -> None:
    missing = {text: where for text, where in texts().items() if text not in ZH}

    assert not missing, json.dumps(missing, ensure_ascii=False, indent=1)


def test_a_translation_names_the_same_fields() -> None:
    assert [t for t, chinese in ZH.items() if fields(chinese) != fields(t)] == []


def test_no_translation_outlives_its_text() -> None:
    columns = {"changes", "rule"}  # fields of PassResult and Rewrite, titles in the report
    written = {
        node.value
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }

    assert set(ZH) - written <= columns


def test_no_error_is_raised_with_a_text_already_filled() -> None:
    filled = [
        f"{path.relative_to(SOURCES)}:{node.lineno}"
        for path in sorted(SOURCES.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in OURS
        and node.args
        and isinstance(node.args[0], ast.JoinedStr)
    ]

    assert filled == []


def test_an_unknown_language_is_english_and_an_unknown_text_is_itself() -> None:
    set_language("xx")
    assert tr("No such {thing}.", thing="x") == "No such x."
    set_language("zh")
    assert tr("No such {thing}.", thing="x") == "No such x."
