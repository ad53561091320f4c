"""Run the rounded model on the CPU; where asked, take the time that the chip is estimated to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoglm.backends.emulated.engine import create
from autoglm.errors import BundleError, CompileError, ConfigError, ExecutionError
from autoglm.spec import Artifact, Closing, Feeds, RunOptions, TensorInfo, Value
from autoglm.tensor.feeds import check_feeds

# A sleep may overshoot by this much; the rest of a wait is spent looking at the clock.
_SPIN_S = 2e-4


def open_session(artifact: Artifact, folder: Path, options: RunOptions) -> EmulatedSession:
    """Load what `compile` wrote."""
    told = {**artifact.meta.get("settings", {}), **options.settings}
    threads = options.threads or int(artifact.meta.get("threads", 0))
    try:
        engine = create(folder / artifact.entry, threads=threads)
    except CompileError as error:
        raise BundleError(
            "{path} does not load: {cause}.", path=artifact.entry, cause=str(error).rstrip(".")
        ) from error
    return EmulatedSession(engine, artifact, pace_of(told))


def pace_of(settings: Mapping[str, str]) -> float:
    """How many times the chip's estimated time a call is to take; 0 = as fast as the CPU can."""
    for key in settings:
        if key != "pace":
            raise ConfigError("emulated has no setting {key!r}; known: pace.", key=key)
    text = settings.get("pace", "false").lower()
    words = {"true": 1.0, "false": 0.0}
    try:
        found = words[text] if text in words else float(text)
    except ValueError:
        found = -1.0
    if not 0.0 <= found < 1e6:
        raise ConfigError(
            "Setting pace takes true, false or a factor from 0 on; found {value!r}.", value=text
        )
    return found


class EmulatedSession(Closing):
    """One chip's partition on the CPU."""

    def __init__(self, engine: Any, artifact: Artifact, pace: float = 0.0) -> None:
        meta = artifact.meta
        self.inputs: tuple[TensorInfo, ...] = artifact.inputs
        self.outputs: tuple[TensorInfo, ...] = artifact.outputs
        self.remark = str(meta["remark"])
        self.uncertainty = float(meta["uncertainty"])  # the estimate is within 1 + this
        self.estimated_s = 0.0  # of the last call, with what crossed the link
        self.overrun_s = 0.0  # seconds that paced calls took longer than the chip is estimated to
        self._engine = engine
        self._names = [o.name for o in self.outputs]
        self._chip_s = float(meta["estimated_s"])
        self._link = 1e9 * float(meta["link_gbps"])
        self._pace = pace

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once; with a pace, return no earlier than the chip would."""
        started = time.perf_counter()
        if self._engine is None:
            raise ExecutionError("The session is closed.")
        checked = check_feeds(self.inputs, feeds)
        try:
            values = self._engine.run(self._names, checked)
        except Exception as error:  # the engine's exceptions have no common base
            raise ExecutionError(
                "The CPU engine beneath the emulation failed: {cause}.",
                cause=" ".join(str(error).split())[:300].rstrip("."),
            ) from error
        moved = sum(v.nbytes for v in (*checked.values(), *values))
        self.estimated_s = self._chip_s + moved / self._link
        if self._pace:
            self._wait(started + self._pace * self.estimated_s)
        return dict(zip(self._names, values, strict=True))

    def _wait(self, until: float) -> None:
        left = until - time.perf_counter()
        if left < 0:
            self.overrun_s -= left
            return
        if left > _SPIN_S:
            time.sleep(left - _SPIN_S)
        while time.perf_counter() < until:
            pass

    def close(self) -> None:
        """Free the engine; may be called twice."""
        self._engine = None
