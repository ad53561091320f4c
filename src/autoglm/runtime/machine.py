"""Measure this machine's speeds once, for the planner; kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from autoglm.errors import WriteError
from autoglm.plan.cost import Machine
from autoglm.runtime.operators import factors

if TYPE_CHECKING:
    import onnx

_FORMAT = 3
_CALL_BUDGET_S = 0.1
_OPERATOR_BUDGET_S = 0.01
_GEMM = 512
_COLD_CALLS, _COLD_BYTES, _PAUSE_S = 40, 1 << 23, 0.003
_BULK_BYTES = 1 << 26
# The roofline leaves out caches, fusion and blocking; measuring better does not mend that.
_LEAST_UNCERTAINTY = 0.5
# An engine that was not measured is taken to cost this many ONNX Runtime calls per call.
_OTHER_DISPATCH = 2.0

_log = logging.getLogger(__name__)


def machine(refresh: bool = False, *, folder: Path | None = None) -> Machine:
    """This machine's speeds: from `folder` (None: the cache folder), else measured in seconds."""
    path = (folder or _cache_folder()) / f"machine-{machine_key()}.json"
    if not refresh:
        found = _load(path)
        if found is not None:
            return found
    measured = measure()
    _store(path, measured)
    return measured


def machine_key() -> str:
    """Names the processor, its usable cores, and the versions that were measured with."""
    parts = (
        _FORMAT,
        _cpu_model(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        version("numpy"),
        version("onnxruntime"),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def measure() -> Machine:
    """Measure now. Rates are the best of several, so that a busy moment does not count for long."""
    rates: dict[str, float] = {}
    spread: list[float] = []
    for dtype in ("float32", "float64", "int8"):
        seconds, noise = _best(_gemm_call(dtype))
        rates[dtype] = _gflops(seconds)
        spread.append(noise)
    flags = _cpu_flags()
    # Engines differ in which half-precision kernels they have; the processor's units set the limit.
    rates["bfloat16"] = rates["float32"] * (2 if flags & {"avx512_bf16", "amx_bf16", "bf16"} else 1)
    rates["float16"] = rates["float32"] * (2 if flags & {"avx512_fp16", "amx_fp16", "fphp"} else 1)
    bulk, noises = _bulk_rates()
    call_s, node_s = _call_seconds()
    vector, more = _best(_vector_call())
    base = Machine(
        gemm_gflops=rates,
        vector_gflops=10.0 * _VECTOR / vector / 1e9,
        dispatch_s={"onnxruntime": call_s, "": _OTHER_DISPATCH * call_s},
        node_s=node_s,
        wake_s=_wake_seconds(),
        uncertainty=max(_LEAST_UNCERTAINTY, *spread, *noises, more),
        source=f"measured: {_cpu_model()}",
        **bulk,
    )
    found, rounds = factors(base, _session_call, _operator_seconds)
    return replace(base, factors=found, round_s=rounds)


def _operator_seconds(call: Callable[[], object]) -> float:
    return _best(call, _OPERATOR_BUDGET_S)[0]


_VECTOR = 1 << 20


def _best(call: Callable[[], object], budget_s: float = _CALL_BUDGET_S) -> tuple[float, float]:
    """Best seconds of a call, and how far its median is above that."""
    call()
    samples: list[float] = []
    end = time.perf_counter() + budget_s
    while len(samples) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        samples.append(max(time.perf_counter() - start, 1e-9))
        if len(samples) >= 2000:
            break
    best = min(samples)
    return best, median(samples) / best - 1.0


def _gflops(seconds: float) -> float:
    return 2.0 * _GEMM**3 / seconds / 1e9


def _gemm_call(dtype: str) -> Callable[[], object]:
    """One square matrix product: ONNX Runtime's, NumPy's for float64."""
    import numpy as np

    draw = np.random.default_rng(0)
    shape = (_GEMM, _GEMM)
    if dtype == "float64":
        a, b = draw.random(shape), draw.random(shape)
        return lambda: a @ b
    if dtype == "int8":
        feeds = {
            "a": draw.integers(0, 255, shape, np.uint8),
            "b": draw.integers(-127, 127, shape, np.int8),
        }
        return _session_call(_product("MatMulInteger", "uint8", "int8", "int32"), feeds)
    feeds = {name: draw.random(shape, np.float32) for name in "ab"}
    return _session_call(_product("MatMul", "float32", "float32", "float32"), feeds)


def _vector_call() -> Callable[[], object]:
    import numpy as np

    values = np.linspace(-4, 4, _VECTOR, dtype=np.float32)
    return _session_call(_unary(["Sigmoid"], _VECTOR), {"t0": values})


def _call_seconds() -> tuple[float, float]:
    """Seconds of one session call, and of one node more inside it."""
    import numpy as np

    more = 32
    feeds = {"t0": np.zeros(4, np.float32)}
    short, _ = _best(_session_call(_unary(["Sigmoid"], 4), feeds))
    long, _ = _best(_session_call(_unary(["Sigmoid"] * (more + 1), 4), feeds))
    return short, max((long - short) / more, 1e-8)


def _wake_seconds() -> float:
    """What a call costs more after a pause in which other data went through the caches."""
    import numpy as np

    call = _session_call(_unary(["Erf"], 1 << 17), {"t0": np.ones(1 << 17, np.float32)})
    other = np.ones(_COLD_BYTES // 4, np.float32)
    aside = np.empty_like(other)

    def pause() -> None:
        time.sleep(_PAUSE_S)
        np.copyto(aside, other)

    def seconds(before: Callable[[], None]) -> float:
        found = []
        for _ in range(_COLD_CALLS):
            before()
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
        return median(sorted(found)[: _COLD_CALLS // 4])

    cold = seconds(pause)
    return max(cold - seconds(lambda: None), 0.0)


def _bulk_rates() -> tuple[dict[str, Any], list[float]]:
    """Read, copy, cast and layout change in GB/s of payload, and the noise of each."""
    import numpy as np

    source = np.ones(_BULK_BYTES // 4, np.float32)
    target, half = np.empty_like(source), np.empty(source.size, np.float16)
    image = source.reshape(4, 64, 256, -1)
    turned = target.reshape(image.shape[0], image.shape[2], image.shape[3], image.shape[1])
    calls: dict[str, Callable[[], object]] = {
        "read_gbps": lambda: np.dot(source, source),
        "copy_gbps": lambda: np.copyto(target, source),
        "cast_gbps": lambda: np.copyto(half, source, casting="same_kind"),
        "layout_gbps": lambda: np.copyto(turned, image.transpose(0, 2, 3, 1)),
    }
    found = {name: _best(call) for name, call in calls.items()}
    rates = {name: _BULK_BYTES / seconds / 1e9 for name, (seconds, _) in found.items()}
    return rates, [noise for _, noise in found.values()]


def _product(op: str, left: str, right: str, result: str) -> onnx.ModelProto:
    from onnx import helper

    shape = (_GEMM, _GEMM)
    return _model(
        [helper.make_node(op, ["a", "b"], ["c"])],
        [("a", left, shape), ("b", right, shape)],
        ("c", result, shape),
    )


def _unary(ops: list[str], size: int) -> onnx.ModelProto:
    from onnx import helper

    nodes = [helper.make_node(op, [f"t{i}"], [f"t{i + 1}"]) for i, op in enumerate(ops)]
    return _model(nodes, [("t0", "float32", (size,))], (f"t{len(ops)}", "float32", (size,)))


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, str, tuple[int, ...]]],
    output: tuple[str, str, tuple[int, ...]],
) -> onnx.ModelProto:
    import numpy as np
    from onnx import helper

    def info(name: str, dtype: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, element, shape)

    graph = helper.make_graph(nodes, "measure", [info(*i) for i in inputs], [info(*output)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _session_call(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> Callable[[], object]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, feeds)


def _cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> frozenset[str]:
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _cpuinfo(key: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _cache_folder() -> Path:
    from autoglm.config import Settings

    return Settings.read().cache_dir


def _load(path: Path) -> Machine | None:
    """What was measured before; None where there is nothing, or nothing that makes sense."""
    try:
        values = json.loads(path.read_text("utf-8"))
        found = Machine(**{f.name: values[f.name] for f in fields(Machine)})
        numbers = (*found.gemm_gflops.values(), found.read_gbps, found.copy_gbps, found.cast_gbps)
        plausible = all(n > 0 for n in (*numbers, found.layout_gbps, found.vector_gflops))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _log.info("measuring again, %s is not readable: %s", path, error)
        return None
    return found if plausible else None


def _store(path: Path, measured: Machine) -> None:
    from autoglm.tensor.files import atomic_write

    try:
        atomic_write(path, json.dumps(asdict(measured), indent=2))
    except (OSError, WriteError) as error:
        # A read-only home is no reason to refuse work: the next run measures again.
        _log.info("the measured speeds are not kept: %s", error)
