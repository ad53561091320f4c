"""Which client gets which protocol, version, priority and limits: data that may change."""

from __future__ import annotations

from autoglm.serve.routes.preload import Preloader
from autoglm.serve.routes.routes import Route, Routes
from autoglm.serve.routes.table import Limits, Table

__all__ = ["Limits", "Preloader", "Route", "Routes", "Table"]
