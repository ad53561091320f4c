"""Run an offline model (OM) on one NPU through pyACL; every return code is checked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoglm.backends.ascend.flags import gears
from autoglm.backends.ascend.status import check
from autoglm.backends.ascend.toolkit import missing
from autoglm.errors import BundleError, ExecutionError, InputError
from autoglm.spec import Artifact, Closing, Feeds, RunOptions, Value
from autoglm.tensor.dtype import to_numpy
from autoglm.tensor.feeds import check_feeds

if TYPE_CHECKING:
    from autoglm.spec import Session

# acl/acl_base.h, acl/acl_rt.h
_HUGE_FIRST = 0
_TO_DEVICE, _TO_HOST = 1, 2
_GEAR_INPUT = "ascend_mbatch_shape_data"
_DTYPES = {
    0: "float32",
    1: "float16",
    2: "int8",
    3: "int32",
    4: "uint8",
    6: "int16",
    7: "uint16",
    8: "uint32",
    9: "int64",
    10: "uint64",
    11: "float64",
    12: "bool",
    16: "complex64",
    27: "bfloat16",
}
_lock = threading.Lock()
# Sessions on each NPU: acl.init and acl.finalize are called once per process, and resetting a
# device takes what every session on it holds.
_users: Counter[int] = Counter()


def open_session(artifact: Artifact, folder: Path, options: RunOptions) -> Session:
    """Load the artifact onto the NPU of that number ("" is 0)."""
    if artifact.kind == "onnx-cann":
        from autoglm.backends.ascend.provider import open_provider

        return open_provider(artifact, folder, options)
    try:
        import acl
    except ImportError as error:
        raise missing(f"Python interface acl ({error})") from error
    path = folder / artifact.entry
    if not path.is_file():
        raise BundleError("The offline model {path} is missing.", path=artifact.entry)
    number = options.device.rpartition(":")[2] or "0"
    if not number.isdecimal():
        raise ExecutionError("An NPU is named by its number; found {device!r}.", device=number)
    return OmSession(acl, path, artifact, int(number))


class OmSession(Closing):
    """One loaded model with its device buffers; calls are made one at a time."""

    def __init__(self, acl: Any, path: Path, artifact: Artifact, number: int) -> None:
        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        self._acl, self._gate = acl, threading.Lock()
        self._gear = gears(artifact.meta.get("flags", {}))
        # What was made, in order, and how it is given back.
        self._undo: list[Callable[[], object]] = []
        try:
            self._load(path, number)
        except BaseException:
            self.close()
            raise

    def _load(self, path: Path, number: int) -> None:
        acl = self._acl
        _begin(acl, number)
        self._undo.append(lambda: _end(acl, number))
        self._context = _made(acl.rt.create_context(number), "acl.rt.create_context")
        context = self._context
        self._undo.append(lambda: check(acl.rt.destroy_context(context), "acl.rt.destroy_context"))
        self._model = _made(acl.mdl.load_from_file(str(path)), "acl.mdl.load_from_file")
        model = self._model
        self._undo.append(lambda: check(acl.mdl.unload(model), "acl.mdl.unload"))
        self._desc = acl.mdl.create_desc()
        desc = self._desc
        self._undo.append(lambda: check(acl.mdl.destroy_desc(desc), "acl.mdl.destroy_desc"))
        check(acl.mdl.get_desc(self._desc, self._model), "acl.mdl.get_desc")
        counts = acl.mdl.get_num_inputs(self._desc), acl.mdl.get_num_outputs(self._desc)
        self._edges_agree(*counts)
        self._in = self._dataset(counts[0], acl.mdl.get_input_size_by_index)
        self._out = self._dataset(counts[1], acl.mdl.get_output_size_by_index)

    def _edges_agree(self, taken: int, given: int) -> None:
        # A model with gears has one input more, which is told the gear.
        expected = len(self.inputs) + bool(self._gear[0]), len(self.outputs)
        if (taken, given) != expected:
            raise BundleError(
                "The offline model has {taken} inputs and {given} outputs; its plan says "
                "{inputs} and {outputs}.",
                hint="Compile the model again.",
                taken=taken,
                given=given,
                inputs=expected[0],
                outputs=expected[1],
            )

    def _dataset(self, count: int, size_of: Callable[[Any, int], int]) -> tuple[Any, list[Any]]:
        acl = self._acl
        dataset = acl.mdl.create_dataset()
        self._undo.append(
            lambda: check(acl.mdl.destroy_dataset(dataset), "acl.mdl.destroy_dataset")
        )
        buffers = []
        for index in range(count):
            size = size_of(self._desc, index)
            memory = _made(acl.rt.malloc(size, _HUGE_FIRST), "acl.rt.malloc")
            self._undo.append(lambda m=memory: check(acl.rt.free(m), "acl.rt.free"))  # type: ignore[misc]
            data = acl.create_data_buffer(memory, size)
            self._undo.append(
                lambda d=data: check(acl.destroy_data_buffer(d), "acl.destroy_data_buffer")  # type: ignore[misc]
            )
            _, code = acl.mdl.add_dataset_buffer(dataset, data)
            check(code, "acl.mdl.add_dataset_buffer")
            buffers.append((memory, size))
        return dataset, buffers

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Copy in, execute, copy out."""
        checked = check_feeds(self.inputs, feeds)
        with self._gate:
            if not self._undo:
                raise ExecutionError("The session is closed.", hint="Open the artifact again.")
            # The context belongs to the thread that made it, and this may be another.
            check(self._acl.rt.set_context(self._context), "acl.rt.set_context")
            self._choose_gear(checked)
            for index, info in enumerate(self.inputs):
                self._copy_in(index, info.name, checked[info.name])
            code = self._acl.mdl.execute(self._model, self._in[0], self._out[0])
            check(code, "acl.mdl.execute")
            return {info.name: self._copy_out(i, info) for i, info in enumerate(self.outputs)}

    def _copy_in(self, index: int, name: str, given: Any) -> None:
        memory, size = self._in[1][index]
        # --input_fp16_nodes makes an input float16.
        held = _DTYPES.get(self._acl.mdl.get_input_data_type(self._desc, index), "")
        wanted = to_numpy(held) if held.startswith("float") else given.dtype
        array = np.ascontiguousarray(given).astype(wanted, copy=False)
        if array.nbytes > size:
            raise InputError(
                "Input {name!r} holds {found} bytes; the offline model takes {size}.",
                name=name,
                found=array.nbytes,
                size=size,
            )
        raw = array.tobytes()
        pointer = self._acl.util.bytes_to_ptr(raw)
        code = self._acl.rt.memcpy(memory, size, pointer, array.nbytes, _TO_DEVICE)
        check(code, "acl.rt.memcpy")

    def _copy_out(self, index: int, info: Any) -> Value:
        acl = self._acl
        dims, code = acl.mdl.get_cur_output_dims(self._desc, index)
        check(code, "acl.mdl.get_cur_output_dims")
        held = acl.mdl.get_output_data_type(self._desc, index)
        if held not in _DTYPES:
            raise ExecutionError(
                "Output {name!r} is of ACL type {held}.", name=info.name, held=held
            )
        dtype, shape = to_numpy(_DTYPES[held]), tuple(dims["dims"])
        wanted = int(np.prod(shape)) * dtype.itemsize
        memory, size = self._out[1][index]
        if wanted > size:
            raise ExecutionError(
                "Output {name!r} of shape {shape} takes {wanted} bytes; the offline model gave "
                "room for {size}.",
                hint="Compile the model again.",
                name=info.name,
                shape=list(shape),
                wanted=wanted,
                size=size,
            )
        host = _made(acl.rt.malloc_host(max(wanted, 1)), "acl.rt.malloc_host")
        try:
            code = acl.rt.memcpy(host, wanted, memory, wanted, _TO_HOST)
            check(code, "acl.rt.memcpy")
            array = np.frombuffer(acl.util.ptr_to_bytes(host, wanted), dtype).reshape(shape)
            return array.astype(to_numpy(info.dtype))
        finally:
            check(acl.rt.free_host(host), "acl.rt.free_host")

    def _choose_gear(self, feeds: dict[str, Value]) -> None:
        name, known = self._gear
        if not name:
            return
        found = _sizes(name, self.inputs, feeds)
        if found not in known:
            raise InputError(
                "The offline model was compiled for {flag} {known}; found {found}.",
                hint="Compile it with that gear, or pad the input.",
                flag=name,
                known=known,
                found=found,
            )
        acl = self._acl
        index = _made(
            acl.mdl.get_input_index_by_name(self._desc, _GEAR_INPUT),
            "acl.mdl.get_input_index_by_name",
        )
        if name == "dynamic_batch_size":
            code = acl.mdl.set_dynamic_batch_size(self._model, self._in[0], index, found[0])
        elif name == "dynamic_image_size":
            code = acl.mdl.set_dynamic_hw_size(self._model, self._in[0], index, *found)
        else:
            dims = [d for info in self.inputs for d in feeds[info.name].shape]
            told = {"name": "", "dimCount": len(dims), "dims": dims}
            code = acl.mdl.set_input_dynamic_dims(self._model, self._in[0], index, told)
        check(code, f"acl.mdl, {name}")

    def close(self) -> None:
        """Give everything back, last made first; may be called twice."""
        with self._gate:
            undo, self._undo = self._undo, []
            failed: list[ExecutionError] = []
            for step in reversed(undo):
                try:
                    step()
                except ExecutionError as error:  # what follows is given back all the same
                    failed.append(error)
            if failed:
                raise failed[0]


def _sizes(name: str, inputs: Any, feeds: dict[str, Value]) -> list[int]:
    """The open sizes of these feeds, as the gears of that flag count them."""
    opened = [
        size
        for info in inputs
        for size, declared in zip(feeds[info.name].shape, info.shape, strict=True)
        if not isinstance(declared, int)
    ]
    count = {"dynamic_batch_size": 1, "dynamic_image_size": 2}.get(name, len(opened))
    return opened[:count]


def _begin(acl: Any, number: int) -> None:
    with _lock:
        if not _users:
            check(acl.init(), "acl.init")
        _users[number] += 1
        try:
            check(acl.rt.set_device(number), "acl.rt.set_device")
        except ExecutionError:
            _leave(acl, number)
            raise


def _end(acl: Any, number: int) -> None:
    with _lock:
        if _users[number] == 1:
            check(acl.rt.reset_device(number), "acl.rt.reset_device")
        _leave(acl, number)


def _leave(acl: Any, number: int) -> None:
    _users[number] -= 1
    if not _users[number]:
        del _users[number]
    if not _users:
        check(acl.finalize(), "acl.finalize")


def _made(result: tuple[Any, int], call: str) -> Any:
    value, code = result
    check(code, call)
    return value
