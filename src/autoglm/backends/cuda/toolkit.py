"""Which of NVIDIA's engines are installed, without loading any."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from importlib.util import find_spec

from autoglm.errors import BackendUnavailableError

ENGINES = ("tensorrt", "onnxruntime")
_PACKAGES = {
    "tensorrt": ("tensorrt", "tensorrt_cu12", "tensorrt_cu13"),
    "onnxruntime": ("onnxruntime-gpu",),
}


def version() -> str:
    """The installed engines, "tensorrt 10.13.0, onnxruntime-gpu 1.24.0"; "" where none is."""
    found = [f"{name} {number}" for name in ENGINES if (number := engine_version(name))]
    return ", ".join(found)


@cache
def _package(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return installed(name)
        except PackageNotFoundError:
            continue
    return ""


def engine_version(engine: str) -> str:
    """Version of one engine; "" where it is not installed."""
    if engine == "tensorrt" and find_spec("tensorrt") is None:
        return ""
    found = _package(_PACKAGES[engine])
    return found or ("of unknown version" if engine == "tensorrt" else "")


def missing(engine: str) -> BackendUnavailableError:
    """The error for an engine that is not installed."""
    if engine == "tensorrt":
        return BackendUnavailableError(
            "TensorRT is not installed.",
            hint="pip install tensorrt cuda-python (NVIDIA's package index), with a GPU driver.",
        )
    return BackendUnavailableError(
        "ONNX Runtime for GPUs is not installed.",
        hint="pip install onnxruntime-gpu, with its CUDA and cuDNN beside it.",
    )
