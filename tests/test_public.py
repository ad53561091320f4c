"""`__all__` is the public list, and every public name says what it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import autoglm

# Typer makes a command's help of its docstring, so those are checked by the command-line tests.
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(autoglm.__path__, "autoglm.")
    if name.startswith(("autoglm.cli", "autoglm.config", "autoglm.errors", "autoglm.registry"))
    or name in ("autoglm.api", "autoglm.messages", "autoglm.settings", "autoglm.spec")
    if not name.endswith("__main__")
)


def test_every_verb_of_the_package_is_there() -> None:
    for name in autoglm.__all__:
        assert getattr(autoglm, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = autoglm.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MODULES)
def test_all_is_true_and_public_names_have_a_docstring(name: str) -> None:
    module = importlib.import_module(name)

    assert module.__doc__
    assert [n for n in getattr(module, "__all__", []) if not hasattr(module, n)] == []
    assert [n for n, value in public(module).items() if not inspect.getdoc(value)] == []


def public(module: ModuleType) -> dict[str, object]:
    """Functions and classes that the module defines itself."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }
