"""A vendor's package joins by being installed, and by nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "vendor-plugin"
NAMES = "from autoglm import registry; print(sorted(registry.backends()), registry.broken())"


def python(*arguments: str, path: Path | None = None, timeout: float = 240) -> str:
    """What a fresh interpreter prints; `path` is where the vendor's package was installed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    found = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return found.stdout + found.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install --target` leaves: the package and its dist-info with the entry point."""
    target = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copytree(EXAMPLE / "src" / "acme_npu", target / "acme_npu")
    info = target / f"autoglm_acme-{project['version']}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head)
    lines = [f"[{group}]" for group in project["entry-points"]]
    lines += [f"{k} = {v}" for g in project["entry-points"].values() for k, v in g.items()]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return target


def test_the_whole_package_is_as_small_as_its_readme_says() -> None:
    count = sum(len(p.read_text("utf-8").splitlines()) for p in (EXAMPLE / "src").rglob("*.py"))
    said = re.search(r"(\d+) lines of source", (EXAMPLE / "README.md").read_text("utf-8"))

    assert count < 150
    assert said is not None
    assert int(said[1]) == count


def test_its_chip_prices_its_plans(installed: Path) -> None:
    text = """
from autoglm import registry
from autoglm.plan import graph_of, make_plan
from models import Builder

b = Builder()
x = b.input("x", [64, 64])
graph = graph_of(b.model(b.op("MatMul", x, b.weight(64, 64))))
plug = registry.backend("acme")
plan = make_plan(graph, {"acme": plug.capabilities()}, backend="acme", policy="error")
print(plan.partitions[0].chip, plan.notes[0])
"""
    paths = Path(f"{installed}{os.pathsep}{Path(__file__).parents[1]}")

    assert "Times of acme are estimated from the catalog: NPU-1" in python("-c", text, path=paths)


def test_it_is_a_backend_only_where_it_is_installed(installed: Path) -> None:
    without, with_it = python("-c", NAMES), python("-c", NAMES, path=installed)

    assert "'onnxruntime'" in without
    assert "'acme'" not in without
    assert "'acme'" in with_it
    assert with_it.strip().endswith("()")


def test_its_own_test_class_passes(installed: Path) -> None:
    report = python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests"), path=installed
    )

    assert " passed" in report, report
    assert "failed" not in report, report
    assert "error" not in report.lower(), report


def test_it_joins_the_matrix(installed: Path) -> None:
    matrix = Path(__file__).parent / "test_matrix.py"
    words = ("-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", str(matrix))

    assert "test_cell[acme-Conv@11:float32]" not in python(*words)
    assert "test_cell[acme-Conv@11:float32]" in python(*words, path=installed)


def test_its_table_answers_with_reasons(installed: Path) -> None:
    text = """
from autoglm import registry
from autoglm.testing.generate import build
from autoglm.testing.operators import SPECS
from autoglm.testing.conformance import reach

acme = registry.backend("acme")
for tag, dtype in (("", "float32"), ("grouped", "float32"), ("3d", "float32")):
    spec = next(s for s in SPECS if s.op == "Conv" and s.tag == tag)
    print(reach(acme, build(spec, 11, dtype)))
"""

    lines = python("-c", text, path=installed).splitlines()

    assert "RAN" in lines[0]
    assert "Conv takes group=1, found 2" in lines[1]
    assert "Conv takes 2 spatial axes, found input rank 5" in lines[2]
