"""Stands in for Huawei's pyACL: signatures, order of calls, return codes, and what is left over.

Calls and codes: Ascend/samples @ fc2aea93e48b, resnet50_imagenet_classification/src/acl_net.py;
hiascend.com pyACL API reference; cann/ge @ ffdcbc9f7496, aclError.md. Device memory holds bytes and
models run in ONNX Runtime. A call of the wrong type raises; a call out of order gives its code.
"""

import itertools
import json
import threading
from types import SimpleNamespace

import numpy as np

INVALID, UNINITIALISED, REPEATED, LEFT_OVER = 100000, 100001, 100002, 148051
NO_DEVICE, NO_CONTEXT, NO_MEMORY, BAD_SIZE, BAD_PATH, BAD_GEAR = (
    *(107001, 107002, 207001, 145012, 145002),
    145013,
)
DEVICES = 2
TYPES = {"float32": 0, "float16": 1, "int8": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 12}
GEAR = "ascend_mbatch_shape_data"


class State:
    """Everything one process holds."""

    def __init__(self):
        self.ready = False
        self.numbers = itertools.count(0x1000, 0x1000)
        self.devices, self.contexts, self.models, self.descs = set(), set(), {}, {}
        self.device_memory, self.host_memory, self.borrowed = {}, {}, {}
        self.datasets, self.buffers = {}, {}
        self.log, self.fail = [], {}

    def left(self):
        """What was made and not given back."""
        plain = ("ready", "log", "fail", "numbers", "borrowed")
        held = {name: value for name, value in vars(self).items() if name not in plain}
        return {name: len(value) for name, value in held.items() if value}


S = State()
_thread = threading.local()


def reset():
    """A fresh process."""
    global S
    S = State()
    _thread.context = None


def _said(name):
    S.log.append(name)
    return S.fail.get(name, 0)


def _needs(kind, *values):
    if not all(isinstance(v, kind) and not isinstance(v, bool) for v in values):
        raise TypeError(f"pyACL takes {kind.__name__}; found {[type(v).__name__ for v in values]}")


def _state():
    if not S.ready:
        return UNINITIALISED
    return 0 if getattr(_thread, "context", None) in S.contexts else NO_CONTEXT


def init(config=None):
    code = _said("acl.init")
    if S.ready:
        return REPEATED
    S.ready = code == 0
    return code


def finalize():
    code = _said("acl.finalize")
    if not S.ready:
        return UNINITIALISED
    if S.left():
        return LEFT_OVER
    S.ready = False
    return code


def _set_device(number):
    _needs(int, number)
    code = _said("acl.rt.set_device")
    if not S.ready:
        return UNINITIALISED
    if not 0 <= number < DEVICES:
        return NO_DEVICE
    if code == 0:
        S.devices.add(number)
    return code


def _reset_device(number):
    code = _said("acl.rt.reset_device")
    if number not in S.devices:
        return NO_DEVICE
    S.devices.discard(number)
    return code


def _create_context(number):
    code = _said("acl.rt.create_context")
    if number not in S.devices:
        return 0, NO_DEVICE
    made = next(S.numbers)
    S.contexts.add(made)
    _thread.context = made
    return made, code


def _set_context(context):
    _said("acl.rt.set_context")
    if context not in S.contexts:
        return INVALID
    _thread.context = context
    return 0


def _destroy_context(context):
    _said("acl.rt.destroy_context")
    if context not in S.contexts:
        return INVALID
    S.contexts.discard(context)
    return 0


def _malloc(size, policy):
    _needs(int, size, policy)
    code = _said("acl.rt.malloc") or _state()
    if size <= 0 or policy not in (0, 1, 2):
        return 0, INVALID
    if code:
        return 0, code
    made = next(S.numbers)
    S.device_memory[made] = bytearray(size)
    return made, 0


def _free(pointer):
    _said("acl.rt.free")
    return 0 if S.device_memory.pop(pointer, None) is not None else INVALID


def _malloc_host(size):
    _needs(int, size)
    _said("acl.rt.malloc_host")
    if size <= 0:
        return 0, INVALID
    made = next(S.numbers)
    S.host_memory[made] = bytearray(size)
    return made, 0


def _free_host(pointer):
    return 0 if S.host_memory.pop(pointer, None) is not None else INVALID


def _memcpy(target, room, source, count, kind):
    _needs(int, target, room, source, count, kind)
    code = _said("acl.rt.memcpy") or _state()
    there, here = {
        1: (S.device_memory, {**S.borrowed, **S.host_memory}),
        2: (S.host_memory, S.device_memory),
    }.get(kind, ({}, {}))
    if target not in there or source not in here or count > room or room > len(there[target]):
        return INVALID
    if count > len(here[source]):
        return INVALID
    there[target][:count] = bytes(here[source][:count])
    return code


def _bytes_to_ptr(data):
    _needs(bytes, data)
    made = next(S.numbers)
    S.borrowed = {made: data}  # valid while the bytes object lives: only the latest is sure to
    return made


def _ptr_to_bytes(pointer, size):
    _needs(int, pointer, size)
    return bytes(S.host_memory[pointer][:size])


class Model:
    """One loaded OM."""

    def __init__(self, raw):
        import onnxruntime as ort

        if raw[:4] != b"FAKE":
            raise ValueError("not an OM")
        size = int.from_bytes(raw[4:12], "little")
        head = json.loads(raw[12 : 12 + size])
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.engine = ort.InferenceSession(raw[12 + size :], options)
        self.flags, self.shapes = head["flags"], head["shapes"]
        self.gear = next((g for g in self.flags if g.startswith("dynamic_")), "")
        separator = "," if self.gear == "dynamic_batch_size" else ";"
        texts = self.flags[self.gear].split(separator) if self.gear else []
        self.gears = [[int(n) for n in t.split(",")] for t in texts]
        self.current = max(self.gears) if self.gears else []
        self.results = self.run([np.zeros(s, t) for _, s, t in self.inputs()])

    def inputs(self):
        names = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64"}
        opened = iter(self.current)
        for value in self.engine.get_inputs():
            sizes = []
            for size in self.shapes.get(value.name, value.shape):
                batch = self.gear == "dynamic_batch_size"
                sizes.append((self.current[0] if batch else next(opened)) if size == -1 else size)
            yield value.name, sizes, names.get(value.type, "float32")

    def run(self, arrays):
        names = [value.name for value in self.engine.get_inputs()]
        return self.engine.run(None, dict(zip(names, arrays, strict=True)))


def _load_from_file(path):
    _needs(str, path)
    code = _said("acl.mdl.load_from_file") or _state()
    if code:
        return 0, code
    try:
        with open(path, "rb") as file:
            model = Model(file.read())
    except OSError:
        return 0, BAD_PATH
    except ValueError:
        return 0, 545001
    made = next(S.numbers)
    S.models[made] = model
    return made, 0


def _unload(model):
    _said("acl.mdl.unload")
    return 0 if S.models.pop(model, None) is not None else INVALID


def _create_desc():
    made = next(S.numbers)
    S.descs[made] = None
    return made


def _get_desc(desc, model):
    _said("acl.mdl.get_desc")
    if desc not in S.descs or model not in S.models:
        return INVALID
    S.descs[desc] = S.models[model]
    return 0


def _destroy_desc(desc):
    return 0 if S.descs.pop(desc, INVALID) is not INVALID else INVALID


def _num_inputs(desc):
    model = S.descs[desc]
    return len(model.engine.get_inputs()) + bool(model.gear)


def _input_size(desc, index):
    sizes = [int(np.prod(s)) * np.dtype(t).itemsize for _, s, t in S.descs[desc].inputs()]
    return [*sizes, 64][index]


def _create_dataset():
    made = next(S.numbers)
    S.datasets[made] = []
    return made


def _destroy_dataset(dataset):
    held = S.datasets.pop(dataset, None)
    if held is None or any(buffer in S.buffers for buffer in held):
        return INVALID  # its buffers are destroyed first
    return 0


def create_data_buffer(pointer, size):
    _needs(int, pointer, size)
    if pointer not in S.device_memory or size > len(S.device_memory[pointer]):
        return 0
    made = next(S.numbers)
    S.buffers[made] = pointer
    return made


def destroy_data_buffer(buffer):
    if buffer not in S.buffers or S.buffers[buffer] not in S.device_memory:
        return INVALID  # before its memory is freed
    del S.buffers[buffer]
    return 0


def _add_dataset_buffer(dataset, buffer):
    if dataset not in S.datasets or buffer not in S.buffers:
        return dataset, INVALID
    S.datasets[dataset].append(buffer)
    return dataset, 0


def _execute(number, given, wanted):
    code = _said("acl.mdl.execute") or _state()
    if code:
        return code
    model = S.models[number]
    arrays = []
    for buffer, (_, shape, dtype) in zip(S.datasets[given], model.inputs(), strict=False):
        raw = S.device_memory[S.buffers[buffer]]
        count = int(np.prod(shape))
        if len(raw) < count * np.dtype(dtype).itemsize:
            return BAD_SIZE
        arrays.append(np.frombuffer(raw, dtype, count).reshape(shape))
    model.results = model.run(arrays)
    for buffer, result in zip(S.datasets[wanted], model.results, strict=True):
        data = np.ascontiguousarray(result).tobytes()
        S.device_memory[S.buffers[buffer]][: len(data)] = data
    return 0


def _input_index(desc, name):
    model = S.descs[desc]
    found = model.gear and name == GEAR
    return (len(model.engine.get_inputs()), 0) if found else (0, INVALID)


def _choose(number, dataset, index, sizes):
    model = S.models[number]
    if dataset not in S.datasets or index != len(model.engine.get_inputs()):
        return INVALID
    if list(sizes) not in model.gears:
        return BAD_GEAR
    model.current = list(sizes)
    return 0


def _set_dims(number, dataset, index, told):
    model = S.models[number]
    if told["dimCount"] != len(told["dims"]):
        return INVALID
    declared = [s for v in model.engine.get_inputs() for s in model.shapes.get(v.name, v.shape)]
    pairs = zip(declared, told["dims"], strict=True)
    return _choose(number, dataset, index, [n for d, n in pairs if d == -1])


def _cur_dims(desc, index):
    shape = list(S.descs[desc].results[index].shape)
    return {"name": f"output:{index}", "dimCount": len(shape), "dims": shape}, 0


rt = SimpleNamespace(
    set_device=_set_device,
    reset_device=_reset_device,
    create_context=_create_context,
    set_context=_set_context,
    destroy_context=_destroy_context,
    malloc=_malloc,
    free=_free,
    malloc_host=_malloc_host,
    free_host=_free_host,
    memcpy=_memcpy,
)
util = SimpleNamespace(bytes_to_ptr=_bytes_to_ptr, ptr_to_bytes=_ptr_to_bytes)
mdl = SimpleNamespace(
    load_from_file=_load_from_file,
    unload=_unload,
    create_desc=_create_desc,
    get_desc=_get_desc,
    destroy_desc=_destroy_desc,
    get_num_inputs=_num_inputs,
    get_num_outputs=lambda desc: len(S.descs[desc].results),
    get_input_size_by_index=_input_size,
    get_output_size_by_index=lambda desc, i: max(S.descs[desc].results[i].nbytes, 1),
    get_input_data_type=lambda desc, i: TYPES[list(S.descs[desc].inputs())[i][2]],
    get_output_data_type=lambda desc, i: TYPES[S.descs[desc].results[i].dtype.name],
    get_cur_output_dims=_cur_dims,
    create_dataset=_create_dataset,
    destroy_dataset=_destroy_dataset,
    add_dataset_buffer=_add_dataset_buffer,
    execute=_execute,
    get_input_index_by_name=_input_index,
    set_dynamic_batch_size=lambda m, d, i, n: _choose(m, d, i, [n]),
    set_dynamic_hw_size=lambda m, d, i, h, w: _choose(m, d, i, [h, w]),
    set_input_dynamic_dims=_set_dims,
)
