"""Stands in for MagicMind's Python runtime: names, order of calls and types.

From Cambricon/magicmind_cloud @ dc085c193c0a, buildin/python_common (mm_runner, model_process,
common_calibrate, build_param) and resnet50_onnx/gen_model. Models run in ONNX Runtime.
"""

import enum
import json

import numpy as np

MODES = (
    *("force_float32", "force_float16", "qint8_mixed_float16", "qint16_mixed_float16"),
    *("qint8_mixed_float32", "qint16_mixed_float32"),
)
KEYS = {
    *("archs", "precision_config", "graph_shape_mutable", "opt_config", "dim_range"),
    *("computation_preference", "cross_compile_toolchain_path", "convert_input_layout"),
}
DEVICES = 1
active = []  # numbers of the devices that were activated


class Code(enum.Enum):
    """Status codes that the samples name."""

    OK = 0
    INVALID_ARGUMENT = 3
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12


class Status:
    """What nearly every call returns."""

    def __init__(self, code=Code.OK, message=""):
        self.code, self.message = code, message

    def ok(self):
        return self.code is Code.OK

    def __str__(self):
        return f"{self.code.name}: {self.message}"


class ModelKind(enum.Enum):
    """Frameworks that the parser reads."""

    kOnnx = 0
    kPytorch = 1
    kTensorflow = 2
    kCaffe = 3


DataType = enum.Enum("DataType", "FLOAT32 FLOAT16 INT8 INT16 INT32 UINT8 BOOL QINT8")
QuantizationAlgorithm = enum.Enum("QuantizationAlgorithm", "LINEAR_ALGORITHM EQNM_ALGORITHM")


class Dims:
    """A shape."""

    def __init__(self, sizes):
        self._sizes = list(sizes)

    def GetDims(self):
        return self._sizes


class Network:
    """Empty until a parser fills it."""

    model = None


class BuilderConfig:
    """Takes JSON, once or in pieces."""

    def __init__(self):
        self.told = {}
        self.calibrated = False

    def parse_from_string(self, text):
        told = json.loads(text)
        unknown = set(told) - KEYS
        if unknown:
            return Status(Code.INVALID_ARGUMENT, f"unknown key {sorted(unknown)[0]}")
        mode = told.get("precision_config", {}).get("precision_mode", MODES[0])
        if mode not in MODES:
            return Status(Code.INVALID_ARGUMENT, f"unknown precision_mode {mode}")
        for arch in told.get("archs", []):
            for name, clusters in arch.items():
                if name not in ("mtp_372", "tp_322", "mtp_592") or not clusters:
                    return Status(Code.INVALID_ARGUMENT, f"unknown arch {name}")
        self.told.update(told)
        return Status()


class CalibDataInterface:
    """Subclassed by whoever calibrates."""


class Calibrator:
    """Runs the samples on a device."""

    def __init__(self, data):
        if not data or not all(isinstance(d, CalibDataInterface) for d in data):
            raise TypeError("Calibrator takes a list of CalibDataInterface")
        self.data, self.algorithm = data, None

    def set_quantization_algorithm(self, algorithm):
        if not isinstance(algorithm, QuantizationAlgorithm):
            raise TypeError("QuantizationAlgorithm expected")
        self.algorithm = algorithm
        return Status()

    def calibrate(self, network, config):
        if not active:
            return Status(Code.INVALID_ARGUMENT, "no device is active")
        if self.algorithm is None or network.model is None:
            return Status(Code.INVALID_ARGUMENT, "set the algorithm and parse a network first")
        for source in self.data:
            if not source.reset().ok():
                return Status(Code.INVALID_ARGUMENT, "reset failed")
            count = 0
            while source.next().ok():
                sample, shape = source.get_sample(), source.get_shape()
                if (
                    list(sample.shape) != shape.GetDims()
                    or source.get_data_type().name != "FLOAT32"
                ):
                    return Status(Code.INVALID_ARGUMENT, "a sample is not what it says")
                count += 1
            if not count:
                return Status(Code.INVALID_ARGUMENT, "no sample")
        config.calibrated = True
        return Status()


class Builder:
    """Builds a model of a network and a configuration."""

    def build_model(self, name, network, config):
        if network.model is None:
            return None
        told = config.told
        if told["precision_config"]["precision_mode"].startswith("q") and not config.calibrated:
            return None
        fixed = all(
            d.HasField("dim_value")
            for v in network.model.graph.input
            for d in v.type.tensor_type.shape.dim
        )
        if not fixed and not (told.get("graph_shape_mutable") and told.get("dim_range")):
            return None
        made = Model()
        made._content = json.dumps(told).encode(), network.model.SerializeToString()
        return made


class Model:
    """Built, or read back."""

    _content = None

    class EngineConfig:
        """Where an engine runs."""

        device_type = ""

    def serialize_to_file(self, path):
        told, model = self._content
        with open(path, "wb") as file:
            file.write(b"MMFAKE" + len(told).to_bytes(8, "little") + told + model)
        return Status()

    def deserialize_from_file(self, path):
        with open(path, "rb") as file:
            raw = file.read()
        if raw[:6] != b"MMFAKE":
            return Status(Code.INVALID_ARGUMENT, "not a MagicMind model")
        size = int.from_bytes(raw[6:14], "little")
        self._content = raw[14 : 14 + size], raw[14 + size :]
        return Status()

    def create_i_engine(self, config):
        if self._content is None or not active or config.device_type != "MLU":
            return None
        return Engine(self)

    def get_input_data_types(self):
        import onnx

        model = onnx.load_from_string(self._content[1])
        types = [v.type.tensor_type.elem_type for v in model.graph.input]
        # 64-bit integers become 32-bit ones (type64to32_conversion).
        return [DataType.INT32 if t == 7 else DataType.FLOAT32 for t in types]


class Engine:
    """Makes contexts."""

    def __init__(self, model):
        self.model = model

    def create_i_context(self):
        return Context(self.model)


class Tensor:
    """Host memory first, device memory once it was moved."""

    def __init__(self, kind=None, array=None):
        self.kind, self.array, self.device = kind, array, None

    def from_numpy(self, array):
        if self.kind and array.dtype != np.dtype(self.kind.name.lower()):
            return Status(Code.INVALID_ARGUMENT, f"{self.kind.name} expected; found {array.dtype}")
        self.array, self.device = array.copy(), None
        return Status()

    def to(self, device):
        if device.id not in active:
            return Status(Code.INVALID_ARGUMENT, "the device is not active")
        self.device = device
        return Status()

    def asnumpy(self):
        return self.array


class Context:
    """Runs a model on a queue."""

    def __init__(self, model):
        import onnxruntime as ort

        self.types = model.get_input_data_types()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.engine = ort.InferenceSession(model._content[1], options)

    def create_inputs(self):
        return [Tensor(kind) for kind in self.types]

    def enqueue(self, inputs, outputs, queue):
        if any(tensor.device is None for tensor in inputs):
            return Status(Code.INVALID_ARGUMENT, "an input is not on the device")
        names = [v.name for v in self.engine.get_inputs()]
        feeds = {
            n: t.array.astype(np.int64) if t.kind is DataType.INT32 else t.array
            for n, t in zip(names, inputs, strict=True)
        }
        results = self.engine.run(None, feeds)
        narrow = [r.astype(np.int32) if r.dtype == np.int64 else r for r in results]
        queue.pending = lambda: outputs.extend(Tensor(array=r) for r in narrow)
        return Status()


class Queue:
    """Nothing is there before `sync`."""

    pending = None

    def sync(self):
        if self.pending is None:
            return Status(Code.INVALID_ARGUMENT, "nothing was enqueued")
        self.pending()
        self.pending = None
        return Status()


class Device:
    """One MLU."""

    id = 0

    def active(self):
        if not 0 <= self.id < DEVICES:
            return Status(Code.INVALID_ARGUMENT, f"no device {self.id}")
        active.append(self.id)
        return Status()

    def create_queue(self):
        return Queue()


class System:
    """Counts devices while it is entered."""

    _open = False

    def __enter__(self):
        self._open = True
        return self

    def __exit__(self, *raised):
        self._open = False

    def device_count(self):
        if not self._open:
            raise RuntimeError("System is not initialised")
        return DEVICES
