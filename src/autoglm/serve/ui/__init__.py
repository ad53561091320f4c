"""The live page at /ui: static files, and the JSON that it asks for once a second."""

from autoglm.serve.ui.page import asset
from autoglm.serve.ui.state import state

__all__ = ["asset", "state"]
