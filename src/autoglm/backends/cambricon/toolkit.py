"""Where MagicMind is, without loading it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from importlib.util import find_spec

from autoglm.errors import BackendUnavailableError


def version() -> str:
    """Version of the installed magicmind; "" where it is not installed."""
    if find_spec("magicmind") is None:
        return ""
    try:
        return installed("magicmind")
    except PackageNotFoundError:
        return "of unknown version"


def missing(cause: str) -> BackendUnavailableError:
    """The error for a MagicMind that is not here."""
    return BackendUnavailableError(
        "MagicMind cannot be loaded: {cause}.",
        hint="MagicMind comes with Cambricon's SDK (developer.cambricon.com): install its Python "
        "wheel and cnrt, and set NEUWARE_HOME. torch_mlu runs through backend torch, device mlu.",
        cause=cause,
    )
