"""The child process: parse the ONNX file and build a plan with TensorRT's Python API."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoglm.backends.cuda.memory import use_gpu
from autoglm.errors import AutoGLMError


def main(path: str) -> int:
    """Do what the order file says; 1 and a line on stderr where TensorRT refuses."""
    order = json.loads(Path(path).read_text("utf-8"))
    try:
        build(order)
    except (RuntimeError, ImportError, AutoGLMError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def build(order: Mapping[str, Any]) -> None:
    """Write the plan; RuntimeError says what TensorRT refused."""
    import tensorrt as trt

    if order["device"]:
        # TensorRT times its kernels on the thread's GPU, which is 0 unless it is told.
        use_gpu(order["device"])
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(order["model"]):
        errors = [_text(parser.get_error(i)) for i in range(parser.num_errors)]
        raise RuntimeError("; ".join(errors) or "the parser gave no reason")
    config = _config(trt, builder, order)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("no engine could be built; the lines above say why")
    Path(order["output"]).write_bytes(bytes(plan))
    if order["timing_cache"]:
        _replace(Path(order["timing_cache"]), bytes(config.get_timing_cache().serialize()))


def _config(trt: Any, builder: Any, order: Mapping[str, Any]) -> Any:
    config = builder.create_builder_config()
    _set_flags(trt, config, order)
    config.builder_optimization_level = order["optimization_level"]
    config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, order["hardware"])
    config.profiling_verbosity = getattr(trt.ProfilingVerbosity, order["verbosity"])
    if order["workspace_bytes"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order["workspace_bytes"])
    if order["aux_streams"] >= 0:
        config.max_aux_streams = order["aux_streams"]
    if order["profile"]:
        profile = builder.create_optimization_profile()
        for name, (least, usual, most) in order["profile"].items():
            profile.set_shape(name, tuple(least), tuple(usual), tuple(most))
        if config.add_optimization_profile(profile) < 0:
            raise RuntimeError("the optimisation profile does not fit the network")
    if order["timing_cache"]:
        path = Path(order["timing_cache"])
        known = path.read_bytes() if path.is_file() else b""
        cache = config.create_timing_cache(known)
        if not config.set_timing_cache(cache, False):
            raise RuntimeError(f"{path} is a timing cache of another GPU or TensorRT version")
    return config


def _set_flags(trt: Any, config: Any, order: Mapping[str, Any]) -> None:
    wanted = [*order["flags"]]
    if order["precision_flag"]:
        wanted.append(order["precision_flag"])
    for name in wanted:
        flag = getattr(trt.BuilderFlag, name, None)
        if flag is None:
            raise RuntimeError(
                f"TensorRT {trt.__version__} has no builder flag {name}: from 11 on it builds "
                "what the model's own dtypes say, so give it a model in that precision"
            )
        config.set_flag(flag)
    # From 11 on Q/DQ nodes are taken without a flag.
    if order["int8"] and hasattr(trt.BuilderFlag, "INT8"):
        config.set_flag(trt.BuilderFlag.INT8)
    if not order["tf32"]:
        config.clear_flag(trt.BuilderFlag.TF32)


def _text(error: Any) -> str:
    return f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}"


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
