"""The engine's own profile, as seconds per source node."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime as ort

_SUFFIX = "_kernel_time"


def profile_folder(options: ort.SessionOptions) -> tempfile.TemporaryDirectory[str]:
    """Turn profiling on, into a folder that goes with the session."""
    folder = tempfile.TemporaryDirectory(prefix="autoglm-profile-")
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(folder.name) / "ort")
    return folder


def read_profile(
    engine: ort.InferenceSession, sources: Mapping[str, str]
) -> list[tuple[str, float]]:
    """Total seconds of each node, slowest first, under its source name where that is known."""
    events = json.loads(Path(engine.end_profiling()).read_text("utf-8"))
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            node = name.removesuffix(_SUFFIX)
            seconds[sources.get(node, node)] += event["dur"] / 1e6
    return sorted(seconds.items(), key=lambda row: -row[1])
