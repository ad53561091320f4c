"""Toolchain environments: recipes, a real small install, and what a failed one leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoglm.errors import BackendUnavailableError, ConfigError, LimitError, WriteError
from autoglm.toolchain import environment, pythons
from autoglm.toolchain.environment import find, home, install, recipes, remove, require

RECIPE = """
title = "nothing but a Python"
version = "1"
python = {python}
licence = "PSF-2.0"
licence_url = "https://docs.python.org/3/license.html"
disk_gb = {size}
check = "{check}"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AUTOGLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "RECIPES", tmp_path)
    recipes.cache_clear()
    yield tmp_path
    recipes.cache_clear()


def write(folder: Path, check: str = "import json", *, python: str = "[]", size: float = 0) -> None:
    (folder / "small.toml").write_text(RECIPE.format(check=check, python=python, size=size))


def test_every_shipped_recipe_says_what_the_user_agrees_to() -> None:
    for name, recipe in recipes().items():
        assert recipe.name == name
        assert recipe.version
        assert recipe.licence
        assert recipe.licence_url.startswith("https://")
        assert recipe.disk_gb > 0
        assert recipe.check
        assert all("==" in package for package in recipe.no_deps)


def test_what_is_not_installed_is_none_and_requiring_it_says_how_to_get_it(folder: Path) -> None:
    write(folder)

    assert find("small") is None
    with pytest.raises(BackendUnavailableError, match="small is not installed") as caught:
        require("small")
    assert caught.value.hint == "autoglm toolchain install small"


def test_an_unknown_name_lists_the_known_ones(folder: Path) -> None:
    write(folder)

    with pytest.raises(ConfigError, match="known: small"):
        find("large")


def test_an_installed_one_is_found_runs_its_own_python_and_can_be_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder)
    monkeypatch.setenv("PYTHONPATH", "/ours")
    said: list[str] = []

    made = install("small", progress=said.append)
    code = "import os, sys; print(sys.prefix, os.environ.get('PYTHONPATH'))"
    done = made.run(["python", "-c", code], log=folder / "log")

    assert find("small") == made == install("small")
    assert done.tail == f"{made.folder} None"
    assert made.variables()["PATH"].split(os.pathsep)[0] == str(made.folder / "bin")
    assert made.size_bytes > 0
    assert remove("small")
    assert find("small") is None
    assert not home("small").exists()
    assert not remove("small")


def test_a_failed_install_leaves_nothing_and_names_its_log(folder: Path) -> None:
    write(folder, "raise SystemExit('no such library')")

    with pytest.raises(BackendUnavailableError, match="no such library") as caught:
        install("small")

    assert not home("small").exists()
    assert "no such library" in Path(str(caught.value.facts["log"])).read_text()


def test_a_folder_without_its_mark_is_not_there(folder: Path) -> None:
    write(folder)
    (home("small") / "bin").mkdir(parents=True)
    (home("small") / "bin" / "python").touch()

    assert find("small") is None


def test_a_changed_recipe_is_another_environment(folder: Path) -> None:
    write(folder)
    first = home("small")
    write(folder, python="['3.11']")
    recipes.cache_clear()

    assert home("small") != first


def test_too_little_disk_is_said_before_anything_is_made(folder: Path) -> None:
    write(folder, size=1e9)

    with pytest.raises(LimitError, match="GB are free"):
        install("small")

    assert not home("small").exists()


def test_a_python_that_nobody_has_is_an_error_that_says_how_to_get_one() -> None:
    with pytest.raises(BackendUnavailableError, match=r"needs Python 3\.1000") as caught:
        pythons.find_python(["3.1000"], "small")

    assert "uv python install 3.1000" in caught.value.hint


def test_a_program_on_path_of_another_version_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "python3.1000"
    fake.write_text("#!/bin/sh\necho 3.9\necho /usr/bin/python3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    with pytest.raises(BackendUnavailableError):
        pythons.find_python(["3.1000"], "small")


def test_a_tree_that_cannot_be_removed_stops_an_install_and_does_not_count_as_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder)
    made = install("small")

    def fail(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", fail)
        with pytest.raises(WriteError, match="Permission denied"):
            install("small", force=True)

    assert made.folder.exists()
    assert find("small") is None
    assert install("small") == made


def test_a_release_candidate_of_pyenv_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("3.1000.9", "3.1000.0rc1", "3.1000.10"):
        program = tmp_path / "versions" / version / "bin" / "python"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho 3.1000\necho /of/{version}\n")
        program.chmod(0o755)
    pyenv = tmp_path / "pyenv"
    pyenv.write_text(f"#!/bin/sh\necho {tmp_path}\n")
    pyenv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    assert pythons.find_python(["3.1000"], "small") == Path("/of/3.1000.10")
