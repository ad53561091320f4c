"""TPU-MLIR in its environment, and its packaging faults put right from outside.

The wheel is not edited. Its variables are those of its own `envsetup.sh`
(github.com/sophgo/tpu-mlir, release_tools/); `import tpu_mlir` would set them too, with the fault.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from autoglm.errors import BackendUnavailableError
from autoglm.spec import Device
from autoglm.toolchain.environment import Environment, find, require
from autoglm.toolchain.service import Service

NAME = "sophon"
# The version in which every fault below was seen; with another, `unproven` says so.
PROVEN = "1.30.2"
INSIDE = Path(__file__).parent / "inside"
# Parts of one program with the system's loader, which ends in "version `GLIBC_2.36' not found" or
# a segmentation fault with the wheel's. Its programs search their own folder after
# LD_LIBRARY_PATH, so the system's must be found there.
_OF_LIBC = ("libc.so", "libm.so", "libpthread.so", "libdl.so", "librt.so", "libutil.so")
# OnnxOpt imports torch to turn a constant into an array, and for nothing else (1.30.2).
_TORCH = '''"""Stands in for PyTorch, of which TPU-MLIR needs one function; by Open-AutoGLM."""
import numpy

__version__ = "0.0.0+autoglm.stub"


class Tensor:
    def __init__(self, data):
        self._data = numpy.asarray(data)

    def numpy(self):
        return self._data


def tensor(data, **_):
    return Tensor(data)


def __getattr__(name):
    raise ImportError(f"torch.{name}: this toolchain has no PyTorch; TPU-MLIR needs it here")
'''
# The wheel's own __init__ would put its libc back in front, for every program started after it.
_PACKAGE = '''"""TPU-MLIR without what its __init__ does to the environment; by Open-AutoGLM."""
__path__ = [{root!r}]
'''


def version() -> str:
    """Version of the installed TPU-MLIR; "" where it is not installed."""
    found = find(NAME)
    return found.version if found else ""


def unproven(version: str) -> str:
    """A warning where the version is not the one that was worked around."""
    if version in ("", PROVEN):
        return ""
    return f"TPU-MLIR {version}: its packaging was put right as for {PROVEN}, and not verified"


def simulators() -> list[Device]:
    """The C-model simulator as a device, where the toolchain is installed."""
    installed = find(NAME)
    if installed is None:
        return []
    facts = {"simulator": f"C model of TPU-MLIR {installed.version}: its time is not the chip's"}
    return [Device("npu", "BM1684X simulator", NAME, "simulator", facts=facts)]


def package(environment: Environment) -> Path:
    """Where the wheel unpacked itself."""
    found = sorted(environment.folder.glob("lib/python3*/site-packages/tpu_mlir"))
    if not found:
        raise BackendUnavailableError(
            "The toolchain {name} in {folder} holds no TPU-MLIR.",
            hint="autoglm toolchain install {name} --force",
            name=NAME,
            folder=environment.folder,
        )
    # Its real place: links to it outlive the way by which the environment was reached.
    return found[0].resolve()


def variables(environment: Environment, chip: str, threads: int = 0) -> dict[str, str]:
    """What its programs need for that chip."""
    home, root = shim(environment, chip), package(environment)
    mine = environment.variables()
    # Before the environment's own: the wheel's wrappers there set what must not be set.
    programs = [home / "bin", home / "tools", environment.python.parent]
    python = [home / "package", root / "python", root / "customlayer" / "python"]
    if not (root.parent / "torch").is_dir():
        python.append(home / "torch")
    return {
        **mine,
        "TPUC_ROOT": str(home),
        "PROJECT_ROOT": str(home),
        "PATH": _joined([*programs, mine["PATH"]]),
        "PYTHONPATH": _joined(python),
        "LD_LIBRARY_PATH": str(home / "lib"),
        "TPUKERNEL_CUSTOM_FIRMWARE_PATH": str(home / "lib" / "libcmodel_custom.so"),
        "OMP_NUM_THREADS": str(threads or os.cpu_count() or 1),
    }


def _joined(parts: Sequence[object]) -> str:
    return os.pathsep.join(map(str, parts))


@cache
def shim(environment: Environment, chip: str) -> Path:
    """A folder like the wheel's, of links: without what clashes, with what must be executable, and
    with a `lib` of its own for each chip, because the simulator links the chip's library there.
    """
    root = package(environment)
    made_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    target = environment.folder / f"autoglm-{made_by}" / chip
    if target.is_dir():
        return target
    target.parent.mkdir(exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{chip}-"))
    for entry in root.iterdir():
        if entry.name not in ("lib", "bin"):
            (partial / entry.name).symlink_to(entry)
    _link_libraries(root / "lib", partial / "lib")
    # The runtime loads `libcmodel.so`; model_runner.py would write this link into the wheel.
    model = "bm1688" if chip == "cv186x" else chip  # one C model for both (model_runner.py)
    (partial / "lib" / "libcmodel.so").unlink(missing_ok=True)
    (partial / "lib" / "libcmodel.so").symlink_to(root / "lib" / f"libcmodel_{model}.so")
    _link_programs(root / "bin", partial / "bin")
    _link_programs(root / "python" / "tools", partial / "tools")
    (partial / "torch").mkdir()
    (partial / "torch" / "torch.py").write_text(_TORCH, "utf-8")
    (partial / "package" / "tpu_mlir").mkdir(parents=True)
    text = _PACKAGE.format(root=str(root))
    (partial / "package" / "tpu_mlir" / "__init__.py").write_text(text, "utf-8")
    try:
        partial.rename(target)
    except OSError:  # another process was first
        shutil.rmtree(partial)
    return target


def _link_libraries(source: Path, target: Path) -> None:
    target.mkdir()
    for entry in _system_libc():
        (target / entry.name).symlink_to(entry)
    for folder in (source, source / "capi", source / "third_party"):
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            link = target / entry.name
            if not entry.name.startswith(("ld-linux", *_OF_LIBC)) and not link.exists():
                link.symlink_to(entry)


def _system_libc() -> list[Path]:
    """The system's own, found beside the one that this process runs with."""
    lines = Path("/proc/self/maps").read_text("utf-8", "replace").splitlines()
    loaded = [Path(line.split()[-1]) for line in lines if line.endswith("/libc.so.6")]
    beside = sorted(loaded[0].parent.iterdir()) if loaded else []
    return [p for p in beside if p.name.startswith(_OF_LIBC) and ".so." in p.name]


def _link_programs(source: Path, target: Path) -> None:
    """Links; copies of those whose executable bit pip did not keep."""
    target.mkdir()
    for entry in sorted(source.iterdir()):
        if entry.is_dir() or os.access(entry, os.X_OK):
            (target / entry.name).symlink_to(entry)
        else:
            shutil.copy(entry, target / entry.name)
            (target / entry.name).chmod(0o755)


def forge(environment: Environment, chip: str, threads: int, memory_bytes: int = 0) -> Service:
    """The process that has TPU-MLIR imported and forks for every tool; ends with ours."""
    return _forge(environment, chip, threads, memory_bytes, os.getpid())


@cache
def _forge(
    environment: Environment, chip: str, threads: int, memory_bytes: int, owner: int
) -> Service:
    log = Path(tempfile.mkdtemp(prefix="autoglm-sophon-")) / "forge.log"
    argv = [str(environment.python), str(INSIDE / "forge.py")]
    service = Service(
        argv, log=log, env=variables(environment, chip, threads), memory_bytes=memory_bytes
    )

    def end() -> None:
        if os.getpid() == owner:  # a fork inherits this, but not the forge
            service.close()
            shutil.rmtree(log.parent, ignore_errors=True)

    atexit.register(end)
    return service


def installed() -> Environment:
    """The environment; an error that says how to get it otherwise."""
    return require(NAME)


def facts_of(environment: Environment) -> Mapping[str, str]:
    """What an artifact says of its toolchain."""
    note = unproven(environment.version)
    return {"note": note} if note else {}
