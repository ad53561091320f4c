"""Run an ONNX file on one of ONNX Runtime's execution providers, and on no other by stealth.

A listed provider is not a working one: ONNX Runtime falls back to the CPU without an error where
the provider's libraries do not load, so the session itself is asked what it runs on. A provider
that loads may still leave nodes to the CPU (CUDA does so by design with the arithmetic of shapes),
so those are counted and named in the session's remark.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoglm.errors import BackendUnavailableError, BundleError, ExecutionError
from autoglm.spec import Artifact, Closing, Feeds, Value
from autoglm.tensor.feeds import check_feeds

CPU = "CPUExecutionProvider"
_RECORD = "session.record_ep_graph_assignment_info"  # older releases ignore it
Chosen = tuple[str, Mapping[str, str]]


def open_on(
    artifact: Artifact, folder: Path, providers: Sequence[Chosen], hint: str
) -> ProviderSession:
    """A session whose providers all really loaded; BackendUnavailableError otherwise."""
    path = folder / artifact.entry
    if not path.is_file():
        raise BundleError("The ONNX artifact {path} is missing.", path=artifact.entry)
    engine = _engine(path, providers, hint)
    loaded = engine.get_providers()
    absent = next((name for name, _ in providers if name not in loaded), None)
    if absent is not None:
        raise BackendUnavailableError(
            "ONNX Runtime could not load {provider}; it would run on {loaded}.",
            hint=hint,
            provider=absent,
            loaded=", ".join(loaded),
        )
    named = {name for name, _ in providers}
    return ProviderSession(engine, artifact, "" if CPU in named else _left_to_cpu(engine))


def _engine(path: Path, providers: Sequence[Chosen], hint: str) -> Any:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendUnavailableError(
            "onnxruntime cannot be imported: {cause}.", hint=hint, cause=_first_line(error)
        ) from error
    wanted, known = [name for name, _ in providers], ort.get_available_providers()
    unknown = next((name for name in wanted if name not in known), None)
    if unknown is not None:
        raise BackendUnavailableError(
            "This onnxruntime was built without {provider}; it has {known}.",
            hint=hint,
            provider=unknown,
            known=", ".join(known),
        )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(_RECORD, "1")
    told: list[Any] = [(name, dict(settings)) for name, settings in providers]
    if CPU not in wanted:
        told.append(CPU)
    try:
        # It prints its fallback on stdout, which belongs to the caller's results.
        with contextlib.redirect_stdout(sys.stderr):
            return ort.InferenceSession(str(path), options, providers=told)
    except Exception as error:  # the engine's exceptions have no common base
        raise ExecutionError(
            "ONNX Runtime refuses the model on {provider}: {cause}.",
            provider=", ".join(wanted),
            cause=_first_line(error),
        ) from error


def _left_to_cpu(engine: Any) -> str:
    """Which nodes the CPU provider took; "" where none."""
    if not hasattr(engine, "get_provider_graph_assignment_info"):
        return "this onnxruntime does not tell whether its CPU provider took nodes of the model"
    placed = [
        (p.ep_name, n.op_type)
        for p in engine.get_provider_graph_assignment_info()
        for n in p.get_nodes()
    ]
    left = Counter(op for name, op in placed if name == CPU)
    if not left:
        return ""
    ops = ", ".join(f"{op} x{count}" if count > 1 else op for op, count in sorted(left.items()))
    return f"{left.total()} of {len(placed)} nodes run on ONNX Runtime's CPU provider: {ops}"


class ProviderSession(Closing):
    """One loaded model on its provider."""

    def __init__(self, engine: Any, artifact: Artifact, remark: str = "") -> None:
        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        self.remark = remark
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
