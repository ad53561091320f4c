"""Any device string that PyTorch or one of its plug-ins knows, and CUDA graphs on it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch

from autoglm.errors import BackendUnavailableError, ConfigError

# Device kinds that a plug-in module registers when it is imported, and where it comes from.
PLUGINS = {
    "npu": ("torch_npu", "pip install torch-npu, of torch's minor version, with CANN"),
    "mlu": ("torch_mlu", "Cambricon's torch_mlu wheel (developer.cambricon.com)"),
    "musa": ("torch_musa", "Moore Threads' torch_musa wheel"),
    "gcu": ("torch_gcu", "Enflame's torch_gcu wheel"),
    "hpu": ("habana_frameworks.torch.core", "Intel Gaudi's PyTorch bridge"),
    "sdaa": ("torch_sdaa", "Tecorigin's torch_sdaa wheel"),
    "xla": ("torch_xla", "pip install torch-xla"),
}
# A recorded graph holds its own copy of every activation on the device.
MOST_GRAPHS = 16
Run = Callable[[Sequence[Any]], list[Any]]


def find_device(name: str) -> torch.device:
    """The device of that name ("" and a bare number mean the CPU), once it has been touched."""
    text = "cpu" if name.isdigit() or not name else name
    _import_plugin(text.partition(":")[0])
    try:
        device = torch.device(text)
        torch.zeros(1, device=device)
    except Exception as error:  # a driver raises whatever it likes
        raise BackendUnavailableError(
            "torch cannot use device {device!r}: {cause}",
            hint="`autoglm devices` lists what is here: cpu, cuda:0, npu:0; `meta` is a dry run.",
            device=name,
            cause=(str(error).strip() or type(error).__name__).splitlines()[0],
        ) from error
    return device


def _import_plugin(kind: str) -> None:
    if kind not in PLUGINS or hasattr(torch, kind):
        return
    module, source = PLUGINS[kind]
    try:
        import_module(module)
    except Exception as error:  # a plug-in whose driver is missing raises OSError or RuntimeError
        absent = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        raise BackendUnavailableError(
            "Device {kind} needs the module {module}, which {cause}.",
            hint="{source}. It is imported before the device is used.",
            kind=kind,
            module=module,
            cause="is not installed" if absent else f"does not load: {error}",
            source=source,
        ) from error


def synchronizer(device: torch.device) -> Callable[[], object] | None:
    """Waits for the device; None where calls return when they are done."""
    if device.type in ("cpu", "meta"):
        return None
    return getattr(torch.get_device_module(device.type), "synchronize", None)


def with_graphs(run: Run, device: torch.device) -> Run:
    """`run` recorded once for each set of shapes and replayed: one launch instead of hundreds.

    The shapes used longest ago are forgotten beyond MOST_GRAPHS; calls wait for one another, since
    a graph has one memory.
    """
    if device.type != "cuda":
        raise ConfigError(
            "CUDA graphs need a device cuda; this session runs on {device}.", device=str(device)
        )
    recorded: OrderedDict[Any, tuple[Any, list[Any], list[Any]]] = OrderedDict()
    gate = threading.Lock()

    def replay(arguments: Sequence[Any]) -> list[Any]:
        if not all(isinstance(a, torch.Tensor) for a in arguments):
            return run(arguments)
        key = tuple((tuple(a.shape), a.dtype) for a in arguments)
        # Streams and captures are made on the thread's current device.
        with gate, torch.cuda.device(device):
            if key not in recorded:
                while len(recorded) >= MOST_GRAPHS:
                    recorded.popitem(last=False)
                recorded[key] = _record(run, arguments)
            recorded.move_to_end(key)
            graph, inputs, outputs = recorded[key]
            for held, given in zip(inputs, arguments, strict=True):
                held.copy_(given)
            graph.replay()
            # The next replay writes the same memory, so the caller gets copies.
            return [o.clone() if isinstance(o, torch.Tensor) else o for o in outputs]

    return replay


def _record(run: Run, arguments: Sequence[Any]) -> tuple[Any, list[Any], list[Any]]:
    inputs = [a.clone() for a in arguments]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries choose kernels and take memory on the first calls
        for _ in range(3):
            run(inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run(inputs)
    return graph, inputs, outputs
