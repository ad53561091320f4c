"""Stands in for TensorRT's Python API, 11.1 by default and 10 on request: names, types, order.

From NVIDIA/TensorRT @ a892d22267d9 (11.1), python/src/infer/pyCore.cpp and parsers/pyOnnx.cpp.
TensorRT 10 has the builder flags FP16, BF16 and INT8 besides. Plans run in ONNX Runtime.
"""

import enum
import json
import os

import numpy as np
from cuda.bindings import runtime as cuda

__version__ = os.environ.get("FAKE_TENSORRT", "11.1.0.106")
_OLD = __version__.startswith("10.")
_FLAGS = (
    "DEBUG GPU_FALLBACK REFIT DISABLE_TIMING_CACHE EDITABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS "
    "DIRECT_IO VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME ERROR_ON_TIMING_CACHE_MISS STRIP_PLAN "
    "REFIT_IDENTICAL WEIGHT_STREAMING REFIT_INDIVIDUAL STRICT_NANS MONITOR_MEMORY"
)
BuilderFlag = enum.Enum("BuilderFlag", _FLAGS + (" FP16 BF16 INT8" if _OLD else ""))
MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE DLA_MANAGED_SRAM TACTIC_DRAM")
HardwareCompatibilityLevel = enum.Enum(
    "HardwareCompatibilityLevel", "NONE AMPERE_PLUS SAME_COMPUTE_CAPABILITY"
)
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "LAYER_NAMES_ONLY DETAILED NONE")
TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
REFUSED = ("NonMaxSuppression", "StringNormalizer", "Unique")


def _needs(kind, value):
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"incompatible function arguments: {kind.__name__}, not {value!r}")


class Logger:
    """Severities are attributes, as in the real one."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self, severity=WARNING):
        self.severity = severity


class ParserError:
    """One refusal."""

    def __init__(self, node, text):
        self._node, self._text = node, text

    def desc(self):
        return self._text

    def node_name(self):
        return self._node.name

    def node_operator(self):
        return self._node.op_type


class Network:
    """Empty until it is parsed into."""

    model = None
    weights = b""


class OnnxParser:
    """Parses into one network."""

    def __init__(self, network, logger):
        _needs(Network, network)
        _needs(Logger, logger)
        self._network, self._errors = network, []

    def parse_from_file(self, path):
        import onnx

        _needs(str, path)
        model = onnx.load(path)
        for node in model.graph.node:
            if node.op_type in REFUSED:
                self._errors.append(ParserError(node, f"no importer for {node.op_type}"))
        self._network.model = model
        return not self._errors

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]


class Profile:
    """Smallest, usual and largest shapes by input name."""

    def __init__(self):
        self.shapes = {}

    def set_shape(self, input, min, opt, max):
        for shape in (min, opt, max):
            _needs(tuple, shape)
        self.shapes[input] = (min, opt, max)

    def __bool__(self):
        return all(
            a <= b <= c for shapes in self.shapes.values() for a, b, c in zip(*shapes, strict=True)
        )


class TimingCache:
    """Bytes of the tactics measured so far."""

    def __init__(self, known):
        self.known = known

    def serialize(self):
        return self.known + b"T"


class Config:
    """What the builder is told."""

    def __init__(self):
        self.flags = {BuilderFlag.TF32}  # on by default
        self.pools, self.profiles, self.cache = {}, [], None
        self.builder_optimization_level = 3
        self.max_aux_streams = -1
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_flag(self, flag):
        _needs(BuilderFlag, flag)
        self.flags.add(flag)

    def clear_flag(self, flag):
        _needs(BuilderFlag, flag)
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool, pool_size):
        _needs(MemoryPoolType, pool)
        _needs(int, pool_size)
        self.pools[pool] = pool_size

    def add_optimization_profile(self, profile):
        if not profile:
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache):
        _needs(bytes, serialized_timing_cache)
        return TimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache, ignore_mismatch):
        _needs(bool, ignore_mismatch)
        self.cache = cache
        return not cache.known.startswith(b"another GPU")

    def get_timing_cache(self):
        return self.cache


class Builder:
    """Builds plans."""

    def __init__(self, logger):
        _needs(Logger, logger)
        self._device = cuda.current()

    def create_network(self, flags=0):
        _needs(int, flags)
        return Network()

    def create_builder_config(self):
        return Config()

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        model = network.model
        if model is None:
            return None
        opened = {
            v.name
            for v in model.graph.input
            if not all(d.HasField("dim_value") for d in v.type.tensor_type.shape.dim)
        }
        profile = config.profiles[0].shapes if config.profiles else {}
        if not opened <= set(profile):
            print("[TRT] [E] Network has dynamic inputs, but no optimization profile is defined")
            return None
        told = {
            "version": __version__,
            "flags": sorted(f.name for f in config.flags),
            "profile": profile,
            "device": self._device,
            "level": config.builder_optimization_level,
            "pools": {p.name: n for p, n in config.pools.items()},
        }
        head = json.dumps(told).encode()
        return b"TRTFAKE" + len(head).to_bytes(8, "little") + head + model.SerializeToString()


class Runtime:
    """Reads plans."""

    def __init__(self, logger):
        _needs(Logger, logger)

    def deserialize_cuda_engine(self, serialized_engine):
        _needs(bytes, serialized_engine)
        if serialized_engine[:7] != b"TRTFAKE":
            return None
        size = int.from_bytes(serialized_engine[7:15], "little")
        told = json.loads(serialized_engine[15 : 15 + size])
        if told["version"] != __version__:
            return None  # the version tag does not match
        return Engine(told, serialized_engine[15 + size :])


class Engine:
    """A plan that was read."""

    def __init__(self, told, model):
        self.told, self.model = told, model
        self.refittable = "REFIT" in told["flags"]

    def create_execution_context(self):
        return Context(self)

    def get_tensor_profile_shape(self, name, profile_index):
        return [tuple(s) for s in self.told["profile"].get(name, [])]


class Context:
    """Runs a plan on addresses."""

    def __init__(self, engine):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.engine, self.session = engine, ort.InferenceSession(engine.model, options)
        self.shapes, self.addresses = {}, {}
        self.declared = {v.name: v for v in self.session.get_inputs()}

    def set_input_shape(self, name, shape):
        _needs(str, name)
        _needs(tuple, shape)
        declared = self.declared[name].shape
        low, _, high = self.engine.told["profile"].get(name, (shape, shape, shape))
        fits = len(shape) == len(declared) and all(
            a <= n <= b and (not isinstance(d, int) or d == n)
            for n, d, a, b in zip(shape, declared, low, high, strict=True)
        )
        if fits:
            self.shapes[name] = shape
        return fits

    def get_tensor_shape(self, name):
        missing = set(self.declared) - set(self.shapes)
        if missing:
            raise RuntimeError(f"shapes of {missing} are not set")
        if any(node in ("NonZero",) for node in self._operators()):
            return (-1,) * 2
        zeros = {n: np.zeros(s, self._dtype(n)) for n, s in self.shapes.items()}
        return self.session.run([name], zeros)[0].shape

    def _operators(self):
        import onnx

        return [n.op_type for n in onnx.load_from_string(self.engine.model).graph.node]

    def _dtype(self, name):
        return {"tensor(int64)": np.int64}.get(self.declared[name].type, np.float32)

    def set_tensor_address(self, name, memory):
        _needs(int, memory)
        self.addresses[name] = memory

    def execute_async_v3(self, stream_handle):
        _needs(int, stream_handle)
        names = [v.name for v in self.session.get_outputs()]
        if cuda.elsewhere(stream_handle) or any(map(cuda.elsewhere, self.addresses.values())):
            return False
        if set(self.addresses) != {*self.declared, *names}:
            return False
        feeds = {
            n: cuda.read(self.addresses[n], shape, self._dtype(n))
            for n, shape in self.shapes.items()
        }
        results = self.session.run(names, feeds)
        cuda.enqueue(
            stream_handle,
            [(self.addresses[n], r) for n, r in zip(names, results, strict=True)],
        )
        return True


class Refitter:
    """Takes new weights into a refittable engine."""

    def __init__(self, engine, logger):
        if not engine.refittable:
            raise RuntimeError("the engine is not refittable")
        self.engine, self.content = engine, None

    def refit_cuda_engine(self):
        if self.content is None:
            return False
        self.engine.model = self.content
        return True

    def get_missing_weights(self):
        return ["w0"]


class OnnxParserRefitter:
    """Reads the weights of another ONNX file."""

    def __init__(self, refitter, logger):
        self.refitter = refitter

    def refit_from_file(self, path):
        import onnx

        old, new = onnx.load_from_string(self.refitter.engine.model), onnx.load(path)
        if [n.op_type for n in old.graph.node] != [n.op_type for n in new.graph.node]:
            return False
        self.refitter.content = new.SerializeToString()
        return True
