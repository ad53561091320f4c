"""Run an ONNX file on one of ONNX Runtime's execution providers, and on no other by stealth.

A listed provider is not a working one: ONNX Runtime falls back to the CPU without an error where
the provider's libraries do not load, so the session itself is asked what it runs on.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoglm.errors import BackendUnavailableError, BundleError, ExecutionError
from autoglm.spec import Artifact, Closing, Feeds, Value
from autoglm.tensor.feeds import check_feeds

CPU = "CPUExecutionProvider"
Chosen = tuple[str, Mapping[str, str]]


def open_on(
    artifact: Artifact, folder: Path, providers: Sequence[Chosen], hint: str
) -> ProviderSession:
    """A session whose first provider really loaded; BackendUnavailableError otherwise."""
    path = folder / artifact.entry
    if not path.is_file():
        raise BundleError("The ONNX artifact {path} is missing.", path=artifact.entry)
    wanted = providers[0][0]
    engine = _engine(path, providers, hint)
    loaded = engine.get_providers()
    if wanted not in loaded:
        raise BackendUnavailableError(
            "ONNX Runtime could not load {provider}; it would run on {loaded}.",
            hint=hint,
            provider=wanted,
            loaded=", ".join(loaded),
        )
    return ProviderSession(engine, artifact)


def _engine(path: Path, providers: Sequence[Chosen], hint: str) -> Any:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendUnavailableError(
            "onnxruntime cannot be imported: {cause}.", hint=hint, cause=_first_line(error)
        ) from error
    wanted, known = providers[0][0], ort.get_available_providers()
    if wanted not in known:
        raise BackendUnavailableError(
            "This onnxruntime was built without {provider}; it has {known}.",
            hint=hint,
            provider=wanted,
            known=", ".join(known),
        )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    told = [(name, dict(settings)) for name, settings in providers if name in known]
    try:
        # It prints its fallback on stdout, which belongs to the caller's results.
        with contextlib.redirect_stdout(sys.stderr):
            return ort.InferenceSession(str(path), options, providers=[*told, CPU])
    except Exception as error:  # the engine's exceptions have no common base
        raise ExecutionError(
            "ONNX Runtime refuses the model on {provider}: {cause}.",
            provider=wanted,
            cause=_first_line(error),
        ) from error


class ProviderSession(Closing):
    """One loaded model on its provider."""

    def __init__(self, engine: Any, artifact: Artifact) -> None:
        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        self.providers: tuple[str, ...] = tuple(engine.get_providers())
        self._names = [info.name for info in artifact.outputs]
        self._engine: Any = engine

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once."""
        if self._engine is None:
            raise ExecutionError("The session is closed.", hint="Open the artifact again.")
        checked = check_feeds(self.inputs, feeds)
        try:
            results = self._engine.run(self._names, checked)
        except Exception as error:  # the engine's exceptions have no common base
            raise ExecutionError(
                "ONNX Runtime failed on {provider}: {cause}.",
                provider=self.providers[0],
                cause=_first_line(error),
            ) from error
        return dict(zip(self._names, results, strict=True))

    def close(self) -> None:
        """Free the engine."""
        self._engine = None


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300].rstrip(" .") if text else type(error).__name__
