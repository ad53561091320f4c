"""What `python …/onnx_paddle` runs: the worker, as a package apart from its neighbours."""

import importlib
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
# Last, so that no file beside this package hides a module of Paddle's.
sys.path[:] = [*sys.path[1:], str(here.parent)]
sys.exit(importlib.import_module(f"{here.name}.serve").main())
