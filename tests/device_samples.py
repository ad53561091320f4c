"""The recorded outputs in tests/samples, and which parser reads which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autoglm.backends.ascend.probe import parse as npu_smi
from autoglm.backends.cambricon.probe import parse as cnmon
from autoglm.backends.cuda.smi import parse as nvidia_smi
from autoglm.backends.kunlun.probe import parse as kunlun_smi
from autoglm.backends.sophon.probe import parse as bm_smi
from autoglm.catalog.cards import Card
from autoglm.catalog.smi import intel as intel_smi

FOLDER = Path(__file__).parent / "samples"
Parser = Callable[[str], list[Card]]
PARSERS: dict[str, Parser] = {
    "nvidia-smi": nvidia_smi,
    "npu-smi": npu_smi,
    "cnmon": cnmon,
    "xpu-smi-kunlun": kunlun_smi,
    "xpu-smi-intel": intel_smi,
    "handmade-bm-smi": bm_smi,
}


def sample(name: str) -> str:
    """The text of the one sample whose name starts so."""
    (path,) = FOLDER.glob(f"{name}*")
    return path.read_text("utf-8", "replace")


def parser_of(path: Path) -> Parser | None:
    """The parser of a sample; None for those of other commands (lscpu)."""
    return next((p for start, p in PARSERS.items() if path.name.startswith(start)), None)
