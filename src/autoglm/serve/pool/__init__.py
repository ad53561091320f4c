"""Models by name and version, loaded, scheduled and evicted while the server answers."""

from __future__ import annotations

from autoglm.serve.pool.pool import Pool
from autoglm.serve.pool.repository import Repository, repository
from autoglm.serve.pool.served import Served
from autoglm.serve.pool.state import State, state_file

__all__ = ["Pool", "Repository", "Served", "State", "repository", "state_file"]
