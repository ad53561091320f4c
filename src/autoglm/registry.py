"""Entry points -> objects, lazily. A plug-in that fails to load is listed with its reason, never
swallowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from autoglm.errors import AutoGLMError, BackendNotFoundError, ModelError, NotOfferedError
from autoglm.spec import API_VERSION, Backend, Frontend

BACKENDS = "autoglm.backends"
FRONTENDS = "autoglm.frontends"
TRANSPORTS = "autoglm.transports"


@dataclass(frozen=True, slots=True)
class Broken:
    """A plug-in that could not be loaded, and why."""

    name: str
    reason: str


@cache
def _load(group: str) -> tuple[dict[str, Any], tuple[Broken, ...]]:
    found: dict[str, Any] = {}
    broken: list[Broken] = []
    for point in sorted(entry_points(group=group), key=lambda p: p.name):
        try:
            plug = point.load()()
            version = plug.api_version
        except Exception as error:  # a plug-in may raise anything; its reason is kept and shown
            broken.append(Broken(point.name, f"{type(error).__name__}: {error}"))
            continue
        if version != API_VERSION:
            broken.append(
                Broken(point.name, f"it speaks plug-in API {version}, this is {API_VERSION}")
            )
        else:
            found[point.name] = plug
    return found, tuple(broken)


def backends() -> dict[str, Backend]:
    """Every registered backend by name; built-ins included."""
    return dict(_load(BACKENDS)[0])


def backend(name: str) -> Backend:
    """The backend of that name; BackendNotFoundError lists what there is."""
    found, broken = _load(BACKENDS)
    if name in found:
        return found[name]  # type: ignore[no-any-return]
    reason = next((b.reason for b in broken if b.name == name), "")
    if reason:
        raise BackendNotFoundError(
            "Backend {name} is installed but does not load: {reason}.", name=name, reason=reason
        )
    raise BackendNotFoundError(
        "Unknown backend {name!r}; registered: {known}.",
        hint="Name one of these, or install the package that brings it.",
        name=name,
        known=", ".join(sorted(found)),
    )


def frontends() -> dict[str, Frontend]:
    """Every registered frontend by name."""
    return dict(_load(FRONTENDS)[0])


def frontend_for(source: object) -> Frontend:
    """The frontend that reads `source`."""
    for plug in frontends().values():
        if plug.detect(source):
            return plug
    raise ModelError(
        "No frontend reads {source}; known: {known}.",
        hint="Give an .onnx, .pt2, TorchScript .pt, .tflite, .keras or .mindir file, a SavedModel "
        "or Hugging Face folder, or a bundle.",
        source=str(source)[:200],
        known=", ".join(sorted(frontends())),
    )


def transport(name: str) -> Any:
    """A new transport of that name (`autoglm.serve.core.Transport`); it holds its connections."""
    found, broken = _load(TRANSPORTS)
    if name in found:
        return type(found[name])()
    reason = next((b.reason for b in broken if b.name == name), "nothing registers it")
    raise NotOfferedError(
        "Transport {name} is not here: {reason}; there are {known}.",
        hint="pip install 'open-autoglm[serve]' brings http, grpc and mqtt.",
        name=name,
        reason=reason,
        known=", ".join(sorted(found)) or "none",
    )


def broken() -> tuple[Broken, ...]:
    """Plug-ins that did not load, with the reason of each."""
    return _load(BACKENDS)[1] + _load(FRONTENDS)[1]


def register_backend(plug: Backend) -> None:
    """Add a backend in this process only (tests, notebooks); packages use the entry point."""
    if plug.api_version != API_VERSION:
        raise AutoGLMError(
            "Backend {name} speaks plug-in API {found}, this is {api}.",
            name=plug.name,
            found=plug.api_version,
            api=API_VERSION,
        )
    _load(BACKENDS)[0][plug.name] = plug
