"""Open-AutoGLM: one model in, the best plan out, with reasons, prices and proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoglm.api import bench, check, compile, inspect, migrate, open, run

__version__ = "0.1.0"
__all__ = ["__version__", "bench", "check", "compile", "inspect", "migrate", "open", "run"]


def __getattr__(name: str) -> Any:
    # The verbs pull in numpy and the registry; `import autoglm` alone must stay light.
    if name in __all__:
        from autoglm import api

        return getattr(api, name)
    raise AttributeError(f"module 'autoglm' has no attribute {name!r}")
