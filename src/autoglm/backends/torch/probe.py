"""What is here, without loading torch where it is not needed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

from autoglm.catalog.evidence import hinted
from autoglm.catalog.remarks import remark
from autoglm.spec import Constraint, Device, Evidence, Support, no, yes

_INT8 = no(Constraint.PRECISION, "our torch mapping quantises nothing itself: fp32, fp16 or bf16")
PRECISIONS: Mapping[str, Support] = {
    "fp32": yes(Evidence.MEASURED),
    "fp16": yes(Evidence.MEASURED),
    "bf16": yes(Evidence.MEASURED),
    "int8": _INT8,
    "int8-dynamic": _INT8,
}


def version() -> str:
    """Version of the installed torch; "" where it is not installed."""
    try:
        return installed("torch")
    except PackageNotFoundError:
        return ""


def list_devices() -> Sequence[Device]:
    """The CPU, and every device of torch's accelerator; [] without torch."""
    if not version():
        return []
    cpu = Device("cpu", "CPU through PyTorch", "torch", "cpu")
    # Loading torch takes seconds; on a Mac the GPU is on no PCI bus.
    if version().endswith("+cpu") or (sys.platform != "darwin" and not hinted()):
        return [cpu]
    try:
        return [cpu, *_accelerators()]
    except Exception as error:  # a plug-in's driver may raise anything; a probe never does
        remark(f"torch's accelerator cannot be listed: {type(error).__name__}: {error}")
        return [cpu]


def _accelerators() -> list[Device]:
    import torch

    if not torch.accelerator.is_available():
        return []
    kind = str(torch.accelerator.current_accelerator())
    family = "gpu" if kind in ("cuda", "xpu", "mps") else "npu"
    count = torch.accelerator.device_count()
    return [_accelerator(family, kind, index) for index in range(count)]


def _accelerator(family: str, kind: str, index: int) -> Device:
    import torch

    properties = torch.get_device_module(kind).get_device_properties(index)
    return Device(
        family,
        str(getattr(properties, "name", kind)),
        "torch",
        f"{kind}:{index}",
        memory_bytes=getattr(properties, "total_memory", None),
    )
