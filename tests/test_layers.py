"""The layers of docs/architecture.md hold."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [command, "--no-cache", "--config", ROOT / "pyproject.toml"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        check=False,
    )


def test_every_contract_is_kept() -> None:
    result = lint(ROOT / "src")

    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


def test_a_plug_in_that_imports_the_planner_is_caught(tmp_path: Path) -> None:
    copy = shutil.copytree(ROOT / "src/autoglm", tmp_path / "autoglm")
    (copy / "backends" / "rogue.py").write_text("import autoglm.plan\nimport autoglm.api\n")

    result = lint(tmp_path)

    assert result.returncode != 0
    assert "autoglm.backends.rogue -> autoglm.api" in result.stdout
