"""The pages that are made from the code are up to date, and no page points nowhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["config.schema.json", "config.md", "cli.md", "errors.md", "support.md"]
)
def test_a_generated_page_is_what_the_code_says_now(name: str) -> None:
    text = generator().pages()[name]

    assert (ROOT / "docs" / name).read_text("utf-8") == text, "run `make generate`"


def test_the_readmes_table_is_what_the_packs_say_now() -> None:
    made = generator()
    text = (ROOT / "README.md").read_text("utf-8")

    assert made.filled(text, "support", made.support_table()) == text, "run `make generate`"


def test_every_measured_version_was_verified_as_well() -> None:
    from autoglm.catalog.packs import shipped
    from autoglm.testing.verify import read_records

    made = generator()
    records = read_records(ROOT / "docs/support")
    measured = {(name, version) for name in made.built_in() for version in shipped(name)}
    verified = {(name, record.toolkit) for name, all_of in records.items() for record in all_of}

    assert measured <= verified, "run `python -m autoglm.testing.verify -o docs/support NAME`"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]

    assert [t for t in targets if t and not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_in_the_pages_exist(page: Path) -> None:
    import typer.main

    from autoglm.cli.app import app

    known = {path for path, _ in generator().commands(typer.main.get_command(app))}
    found = set(re.findall(r"(?:^|[`\s/])(autoglm [a-z]+)(?=[\s`])", page.read_text("utf-8")))
    verbs = {
        words for words in found if words.split()[1] not in ("is", "has", "and", "the", "with")
    }

    assert verbs <= known


def test_every_backend_has_a_page_that_says_how_far_it_is_verified() -> None:
    from autoglm.registry import backends

    for name, plug in backends().items():
        if not type(plug).__module__.startswith("autoglm."):
            continue
        text = (ROOT / f"docs/backends/{name}.md").read_text("utf-8")
        assert "Verified" in text, name
