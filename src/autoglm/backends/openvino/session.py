"""Run a compiled model through infer requests whose inputs stay bound; outputs are copies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoglm.backends.openvino.engine import configuration, core, load, reason
from autoglm.errors import BundleError, CompileError, ExecutionError
from autoglm.spec import Artifact, Closing, Feeds, RunOptions, TensorInfo, Value
from autoglm.tensor.dtype import to_numpy
from autoglm.tensor.feeds import check_feeds, fits, is_plain
from autoglm.tensor.packing import from_bytes, to_bytes

if TYPE_CHECKING:
    import openvino as ov

Array = np.ndarray[Any, Any]
# Smaller inputs are copied into the request's own tensor, larger ones are handed over as they are.
_COPY_BYTES = 1 << 16
_any_bit = np.bitwise_or.reduce


def open_session(artifact: Artifact, folder: Path, options: RunOptions) -> OvSession:
    """Load and compile for the device; the precision is the one the artifact was compiled for."""
    meta = artifact.meta
    settings = {**meta.get("settings", {}), **options.settings}
    threads = options.threads or int(meta.get("threads", 0))
    device = options.device or str(meta.get("device", "CPU"))
    told = configuration(
        artifact.precision,
        settings,
        beside_int8=str(meta.get("beside_int8", "fp32")),
        threads=threads,
        profile=options.profile,
    )
    path = folder / artifact.entry
    try:
        model = core().read_model(str(path))
        compiled = load(model, device, told)
    except (RuntimeError, CompileError) as error:
        raise BundleError(
            "{path} does not load: {cause}.", path=path.name, cause=reason(error)
        ) from error
    return OvSession(compiled, artifact, profile=options.profile)


class _Slot:
    """One infer request and the tensors bound to it; used by one call at a time."""

    def __init__(self, compiled: ov.CompiledModel, count: int) -> None:
        self.request = compiled.create_infer_request()
        self.bound: list[Array | None] = [None] * count
        self.shapes: list[tuple[int, ...] | None] = [None] * count

    def bind(self, index: int, array: Array) -> None:
        """Give the engine this input."""
        import openvino as ov

        shape = array.shape
        if self.shapes[index] == shape:
            self.bound[index][...] = array  # type: ignore[index]
            return
        small = array.nbytes <= _COPY_BYTES
        copied = small or not array.flags.writeable  # the engine takes no read-only memory
        held = array.copy() if copied else np.asarray(array, order="C")
        self.request.set_input_tensor(index, ov.Tensor(held, shared_memory=True))
        self.bound[index] = held
        self.shapes[index] = shape if small else None


class OvSession(Closing):
    """One compiled model; calls from several threads each take a request of their own."""

    def __init__(self, compiled: ov.CompiledModel, artifact: Artifact, *, profile: bool) -> None:
        self.inputs: tuple[TensorInfo, ...] = artifact.inputs
        self.outputs: tuple[TensorInfo, ...] = artifact.outputs
        self._compiled: ov.CompiledModel | None = compiled
        self._profile = profile
        self._seconds: dict[str, float] = {}
        self._labels = _labels(compiled, artifact.meta.get("renamed", {})) if profile else {}
        self._free: list[_Slot] = [_Slot(compiled, len(self.inputs))]
        self._names = [info.name for info in self.outputs]
        self._known = frozenset(info.name for info in self.inputs)
        self._expected = [(i, v.name, to_numpy(v.dtype)) for i, v in enumerate(self.inputs)]
        self._wide = [v.name for v in self.inputs if v.dtype == "int64"]
        # Sizes that only the engine's run can show to be what the model declares.
        self._sizes = [
            (i, v)
            for i, (v, port) in enumerate(zip(self.outputs, compiled.outputs, strict=True))
            if v.shape is not None and port.get_partial_shape().is_dynamic
        ]
        # Two outputs that are one port come back as one from `infer`.
        separate = len({(p.get_node(), p.get_index()) for p in compiled.outputs}) == len(
            self.outputs
        )
        self._plain = separate and all(map(is_plain, (*self.inputs, *self.outputs)))

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Run once; the outputs are the caller's own arrays."""
        slot = self._take()
        try:
            if not self._plain:
                return self._run_typed(slot, check_feeds(self.inputs, feeds))
            try:
                return self._run_plain(slot, feeds)
            except ExecutionError:
                raise
            except Exception as error:  # whatever refused the feeds, the check says why
                return self._run_again(slot, feeds, error)
        finally:
            self._free.append(slot)

    def _take(self) -> _Slot:
        try:
            return self._free.pop()
        except IndexError:
            if self._compiled is None:
                raise ExecutionError("The session is closed.") from None
            return _Slot(self._compiled, len(self.inputs))

    def _run_plain(self, slot: _Slot, feeds: Feeds) -> dict[str, Value]:
        if len(feeds) != len(self._expected):
            raise ValueError("feeds")
        for index, name, dtype in self._expected:
            array = feeds[name]
            # Identity is the fast way; arrays from a file or a pipe carry an equal dtype object.
            if array.dtype is not dtype and array.dtype != dtype:
                raise ValueError(name)
            slot.bind(index, array)
        for name in self._wide:
            _refuse_wide(name, feeds[name])
        results = slot.request.infer()
        if self._profile:
            self._count(slot.request)
        found = list(results.values())
        if self._sizes:
            self._refuse_misshapen(found)
        return dict(zip(self._names, found, strict=True))

    def _refuse_misshapen(self, found: list[Array]) -> None:
        for index, info in self._sizes:
            if not fits(found[index].shape, info.shape):
                raise ExecutionError(
                    "OpenVINO gives {name!r} the shape {found}; the model declares {expected}.",
                    name=info.name,
                    found=list(found[index].shape),
                    expected=list(info.shape or ()),
                )

    def _run_again(self, slot: _Slot, feeds: Feeds, error: Exception) -> dict[str, Value]:
        checked = check_feeds(self.inputs, feeds)
        if all(checked[name] is feeds[name] for name in checked):
            raise ExecutionError("OpenVINO failed: {cause}.", cause=reason(error)) from error
        try:
            return self._run_plain(slot, {n: _native(a) for n, a in checked.items()})
        except ExecutionError:
            raise
        except Exception as again:  # the engine raises bare RuntimeError for everything
            raise ExecutionError("OpenVINO failed: {cause}.", cause=reason(again)) from again

    def _run_typed(self, slot: _Slot, feeds: Feeds) -> dict[str, Value]:
        try:
            for index, info in enumerate(self.inputs):
                if info.dtype == "int64":
                    _refuse_wide(info.name, feeds[info.name])
                slot.request.set_input_tensor(
                    index, _tensor(self._compiled, index, info, feeds[info.name])
                )
            slot.request.infer()
            found = [slot.request.get_output_tensor(i) for i in range(len(self.outputs))]
        except ExecutionError:
            raise
        except Exception as error:  # the engine raises bare RuntimeError for everything
            raise ExecutionError("OpenVINO failed: {cause}.", cause=reason(error)) from error
        pairs = zip(self.outputs, found, strict=True)
        arrays = [_array(info, tensor) for info, tensor in pairs]
        self._refuse_misshapen(arrays)
        return dict(zip(self._names, arrays, strict=True))

    def _count(self, request: Any) -> None:
        for row in request.get_profiling_info():
            label = self._labels.get(row.node_name, row.node_name)
            seconds = row.real_time.total_seconds()
            if seconds:
                self._seconds[label] = self._seconds.get(label, 0.0) + seconds

    def profile(self) -> list[tuple[str, float]]:
        """Seconds spent in each node since a session was opened with `profile=True`."""
        if not self._profile:
            raise ExecutionError("This session was not opened with profile=True.")
        return sorted(self._seconds.items(), key=lambda row: -row[1])

    def close(self) -> None:
        """Free the engine; may be called twice."""
        self._compiled = None
        self._free.clear()


def _labels(compiled: ov.CompiledModel, renamed: Mapping[str, str]) -> dict[str, str]:
    """What the engine runs -> the nodes it was made of, joined by commas."""
    labels = {}
    for node in compiled.get_runtime_model().get_ops():
        text = str(node.get_rt_info()["originalLayersNames"].value)
        parts = [renamed.get(part, part) for part in text.split(",") if part]
        labels[node.get_friendly_name()] = ",".join(parts) or node.get_friendly_name()
    return labels


def _refuse_wide(name: str, array: Array) -> None:
    # Folding the sign away leaves bits above the 31st only where 32 bits are not enough.
    if int(_any_bit(array ^ (array >> 63), axis=None)) >> 31:
        raise ExecutionError(
            "OpenVINO computes int64 in 32 bits; input {name!r} holds values beyond that.",
            name=name,
        )


def _native(array: Array) -> Array:
    # `longlong` and `int64` are two dtypes of one size; the hot path compares dtypes by identity.
    return array.view(to_numpy(array.dtype.name))


def _tensor(compiled: Any, index: int, info: TensorInfo, array: Array) -> ov.Tensor:
    import openvino as ov

    tensor = ov.Tensor(compiled.inputs[index].get_element_type(), ov.Shape(list(array.shape)))
    raw = to_bytes(array, info.dtype)
    if raw.size:
        tensor.data.reshape(-1).view(np.uint8)[...] = raw
    return tensor


def _array(info: TensorInfo, tensor: ov.Tensor) -> Array:
    raw = tensor.data.reshape(-1).view(np.uint8) if tensor.byte_size else np.empty(0, np.uint8)
    return from_bytes(raw, info.dtype, tuple(tensor.shape))
