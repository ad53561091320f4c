"""What loads what: importing the package, or asking for help, must stay light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"numpy", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "openvino", "torch", "sympy"}
SOURCES = Path(__file__).parents[1] / "src/autoglm"


def loaded(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `code`."""
    report = "import json, sys; print(); print(json.dumps([m.split('.')[0] for m in sys.modules]))"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded("import autoglm") & (HEAVY | {"pydantic", "rich", "typer", "yaml"})


@pytest.mark.parametrize("words", [["--help"], ["check", "--help"], ["config", "show", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    found = loaded(f"from autoglm.cli.app import invoke; assert invoke({words!r}) == 0")

    # Not pydantic: typer itself may load it.
    assert found & (HEAVY | {"rich", "yaml"}) == set()


@pytest.mark.parametrize("module", ["spec", "errors", "messages", "registry", "settings", "keys"])
def test_the_concepts_need_the_standard_library_only(module: str) -> None:
    found = loaded(f"import autoglm.{module}")

    assert not found & (HEAVY | {"pydantic", "rich", "typer", "yaml"})


def test_only_settings_reads_the_environment() -> None:
    readers = [
        str(path.relative_to(SOURCES))
        for path in SOURCES.rglob("*.py")
        if any(word in path.read_text("utf-8") for word in ("os.environ", "getenv", "environ["))
    ]

    # It runs in the vendor's Python, and writes where it stands for the tools that it forks.
    allowed = {"settings.py", "backends/sophon/inside/forge.py"}
    assert set(readers) <= allowed


def test_no_plug_in_is_imported_by_its_name_elsewhere() -> None:
    wrong = [
        str(path.relative_to(SOURCES))
        for path in SOURCES.rglob("*.py")
        if path.relative_to(SOURCES).parts[0] not in ("backends", "frontends", "testing")
        and "autoglm.backends." in path.read_text("utf-8")
    ]

    assert wrong == []
