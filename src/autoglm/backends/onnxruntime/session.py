"""Run an artifact: plain tensors go straight to the engine; feeds it refuses are examined."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.backends.onnxruntime.options import QUIET, reason, require_engine, session_options
from autoglm.backends.onnxruntime.probe import cpu_identity
from autoglm.errors import BackendUnavailableError, BundleError, ExecutionError
from autoglm.spec import Artifact, Closing, Feeds, RunOptions, TensorInfo, Value
from autoglm.tensor.dtype import to_numpy
from autoglm.tensor.feeds import check_feeds, is_exotic, is_plain

if TYPE_CHECKING:
    import onnxruntime as ort


def open_session(artifact: Artifact, folder: Path, options: RunOptions) -> OrtSession:
    """Load the artifact; BackendUnavailableError where it was optimised for another kind of CPU."""
    from autoglm.backends.onnxruntime.profile import profile_folder

    require_engine()
    made_for = artifact.meta.get("cpu", "")
    if made_for and made_for != cpu_identity():
        raise BackendUnavailableError(
            "This artifact was optimised for a CPU with {expected}; this one has {found}.",
            hint="Compile the model again on this machine.",
            expected=made_for,
            found=cpu_identity(),
        )
    quiet = QUIET if options.alternates else {}
    settings = {**quiet, **artifact.meta.get("settings", {}), **options.settings}
    threads = options.threads or int(artifact.meta.get("threads", 0))
    raw = session_options(settings, threads=threads, optimize=bool(artifact.meta.get("optimize")))
    profiles = profile_folder(raw) if options.profile else None
    try:
        engine = create(folder / artifact.entry, raw)
        if made_for:
            _give_back_free_heap()
        return OrtSession(engine, artifact, profiles)
    except ExecutionError as error:
        raise BundleError(
            "{path} does not load: {cause}.",
            path=artifact.entry,
            cause=reason(error.__cause__ or error),
        ) from error


def _give_back_free_heap() -> None:
    # The engine packs each weight again to see that the file's copy is right, then drops it; glibc
    # keeps those pages in its heap, private to this process, until it is told to trim.
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def create(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """The engine's session on the CPU; ExecutionError with its reason."""
    import onnxruntime as ort

    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the engine's exceptions have no common base
        raise ExecutionError(
            "onnxruntime refuses the model: {cause}.", cause=reason(error)
        ) from error


class OrtSession(Closing):
    """One loaded artifact; `run` may be called from several threads."""

    def __init__(
        self, engine: ort.InferenceSession, artifact: Artifact, profiles: Any = None
    ) -> None:
        self.inputs: tuple[TensorInfo, ...] = artifact.inputs
        self.outputs: tuple[TensorInfo, ...] = artifact.outputs
        self._engine: ort.InferenceSession | None = engine
        self._profiles = profiles
        self._sources: Mapping[str, str] = artifact.meta.get("sources", {})
        self._names = [info.name for info in self.outputs]
        self._call: Callable[[list[str], Feeds], list[Value]] = engine.run
        # The engine checks dtype, rank and sizes itself, but takes byte-swapped arrays for native
        # ones and any rank where a 0-d tensor is declared: these two are looked at before a call.
        self._dtypes = [(info.name, to_numpy(info.dtype)) for info in self.inputs if is_plain(info)]
        self._scalars = [info.name for info in self.inputs if info.shape == ()]
        values = (*self.inputs, *self.outputs)
        self._plain = all(map(is_plain, values))
        self._typed = any(is_exotic(info) for info in values)

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once; the outputs are the caller's own arrays."""
        if not self._plain:
            return self._run_checked(feeds)
        try:
            for name, dtype in self._dtypes:
                if feeds[name].dtype is not dtype:
                    return self._run_checked(feeds)
            for name in self._scalars:
                if feeds[name].shape:
                    return self._run_checked(feeds)
            return dict(zip(self._names, self._call(self._names, feeds), strict=True))
        except ExecutionError:
            raise
        except Exception:  # whatever refused the feeds, the slow path says why
            return self._run_checked(feeds)

    def _run_checked(self, feeds: Feeds) -> dict[str, Value]:
        checked = check_feeds(self.inputs, feeds)
        try:
            call = self._call_typed if self._typed else self._call
            return dict(zip(self._names, call(self._names, checked), strict=True))
        except ExecutionError:
            raise
        except Exception as error:  # the engine's exceptions have no common base
            raise ExecutionError("onnxruntime failed: {cause}.", cause=reason(error)) from error

    def _call_typed(self, names: list[str], feeds: Feeds) -> list[Value]:
        from autoglm.backends.onnxruntime.typed import from_ort, to_ort

        engine = self._engine
        if engine is None:
            return _closed(names, feeds)
        given = [(i, feeds[i.name]) for i in self.inputs if feeds[i.name] is not None]
        values = {info.name: to_ort(info, array) for info, array in given}
        return [from_ort(value) for value in engine.run_with_ort_values(names, values)]

    def profile(self) -> list[tuple[str, float]]:
        """Seconds spent in each node since a session was opened with `profile=True`; ends it."""
        from autoglm.backends.onnxruntime.profile import read_profile

        if self._engine is None or self._profiles is None:
            raise ExecutionError("This session was not opened with profile=True, or is closed.")
        return read_profile(self._engine, self._sources)

    def close(self) -> None:
        """Free the engine; may be called twice."""
        self._engine = None
        self._call = _closed
        if self._profiles is not None:
            self._profiles.cleanup()
            self._profiles = None


def _closed(names: list[str], feeds: Feeds) -> list[Value]:
    raise ExecutionError("The session is closed.")
