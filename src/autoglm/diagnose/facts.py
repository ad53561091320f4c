"""What is installed here: wheels, toolkits, drivers, C library; from files, without starting tools
where a file says it.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from autoglm.documents import read_document
from autoglm.errors import ConfigError
from autoglm.toolchain.tool import ask

# Component -> the distributions that bring it; the first that is installed counts.
WHEELS = {
    "open-autoglm": ("open-autoglm",),
    "numpy": ("numpy",),
    "torch": ("torch",),
    "torch_npu": ("torch-npu",),
    "torch_mlu": ("torch-mlu",),
    "vllm": ("vllm",),
    "vllm-ascend": ("vllm-ascend",),
    "onnxruntime": ("onnxruntime",),
    "onnxruntime-gpu": ("onnxruntime-gpu",),
    "onnxruntime-cann": ("onnxruntime-cann",),
    "tensorrt-cu11": ("tensorrt-cu11", "tensorrt_cu11_bindings"),
    "tensorrt-cu12": ("tensorrt-cu12", "tensorrt_cu12_bindings"),
    "tensorrt-cu13": ("tensorrt-cu13", "tensorrt_cu13_bindings"),
    "tpu_mlir": ("tpu-mlir",),
    "paddlepaddle": ("paddlepaddle",),
    "paddlepaddle-xpu": ("paddlepaddle-xpu",),
    "openvino": ("openvino",),
    "mindspore": ("mindspore",),
    "cuda": ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime-cu11"),
    "cudnn": ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "nvidia-cudnn-cu11"),
}
_NUMBER = r"(\d+(?:\.\w+)+)"
# Component -> (files, the first match counts; pattern of the version).
FILES: dict[str, tuple[tuple[str, ...], str]] = {
    "nvidia-driver": (
        ("/proc/driver/nvidia/version",),
        rf"NVRM version:.*?(?:Module|x86_64|aarch64)\s+{_NUMBER}",
    ),
    "cuda": (
        ("/usr/local/cuda/version.json", "/usr/local/cuda/version.txt"),
        rf'(?:"cuda"\s*:\s*\{{[^}}]*?"version"\s*:\s*"|CUDA Version ){_NUMBER}',
    ),
    "cann": (
        (
            "/usr/local/Ascend/ascend-toolkit/latest/*-linux/ascend_toolkit_install.info",
            "/usr/local/Ascend/ascend-toolkit/latest/version.cfg",
            "/usr/local/Ascend/cann/*-linux/ascend_toolkit_install.info",
        ),
        rf"(?m)^(?:version|toolkit_installed_version)=\[?{_NUMBER}",
    ),
    "nnal": (
        ("/usr/local/Ascend/nnal/atb/latest/version.info", "/usr/local/Ascend/nnal/*.info"),
        rf"(?im)^\s*(?:ascend-cann-atb|version)(?: version)?\s*[:=]\s*{_NUMBER}",
    ),
    "ascend-driver": (("/usr/local/Ascend/driver/version.info",), rf"(?m)^Version={_NUMBER}"),
    "ascend-firmware": (("/usr/local/Ascend/firmware/version.info",), rf"(?m)^Version={_NUMBER}"),
    "neuware": (("/usr/local/neuware/version.txt",), _NUMBER),
    "mlu-driver": (
        ("/proc/driver/cambricon/mlus/*/information",),
        rf"Driver Version\s*:\s*v?{_NUMBER}",
    ),
    "libsophon": (
        ("/opt/sophon/libsophon-current/.version", "/proc/bmsophon/driver_version"),
        _NUMBER,
    ),
}
# What only a tool says: its command, and component -> pattern.
TOOLS: tuple[tuple[list[str], dict[str, str]], ...] = (
    (
        ["nvidia-smi", "--query-gpu=driver_version,compute_cap", "--format=csv,noheader"],
        {
            "nvidia-driver": rf"(?m)^\s*{_NUMBER}\s*,",
            "compute-capability": r"(?m)^\s*[\d.]+\s*,\s*(\d+\.\d+)\s*$",
        },
    ),
    (["npu-smi", "info"], {"ascend-driver": rf"npu-smi\s+{_NUMBER}\s+Version"}),
    (["xpu-smi"], {"kunlun-chip": r"(?s)^(?!.*Intel).*XPU-SMI.*?\b(P800|R200|R300|K200)"}),
)
_READ = 1 << 16


def gather(root: Path = Path("/")) -> dict[str, str]:
    """Component -> version, of all that is found; `root` is for tests."""
    facts = {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "container": _container(root),
        "glibc": platform.libc_ver()[1],
    }
    facts |= {name: _from_files(root, *where) for name, where in FILES.items()}
    facts |= {name: v for name, names in WHEELS.items() if (v := _wheel(names))}
    facts |= {name: v for name, v in _from_tools().items() if not facts.get(name)}
    return {name: version for name, version in sorted(facts.items()) if version}


def read_facts(path: Path) -> dict[str, str]:
    """Another machine's facts, as `--save-facts` wrote them."""
    table = read_document(path)
    facts = table.get("facts", table)
    if not isinstance(facts, Mapping) or not all(isinstance(v, str) for v in facts.values()):
        raise ConfigError(
            "{path}: expected a table of component = version, both texts.",
            hint="`autoglm doctor --save-facts FILE.json` writes one.",
            path=path,
        )
    return {str(name): str(version) for name, version in facts.items() if version}


def _wheel(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _from_files(root: Path, patterns: tuple[str, ...], version: str) -> str:
    for pattern in patterns:
        for path in sorted(root.glob(pattern.lstrip("/"))):
            match = re.search(version, _text(path))
            if match:
                return match.group(1)
    return ""


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_READ).decode("utf-8", "replace")
    except OSError:
        return ""


def _container(root: Path) -> str:
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    match = re.search(r"kubepods|docker|containerd|lxc", _text(root / "proc/1/cgroup"))
    return match.group(0) if match else ""


def _from_tools() -> dict[str, str]:
    found: dict[str, str] = {}
    for argv, patterns in TOOLS:
        text = ask(argv).text
        matches = {name: re.search(pattern, text) for name, pattern in patterns.items()}
        found |= {name: match.group(1) for name, match in matches.items() if match}
    return found
