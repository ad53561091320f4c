"""The model's own versions: IR version and operator sets, against what the installed onnx knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoglm.errors import ModelError
from autoglm.frontends import shown

if TYPE_CHECKING:
    import onnx

_STANDARD = ("", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")


def check_header(proto: onnx.ModelProto) -> None:
    """Refuse a model without a graph, of a future IR or opset, or with contradictory imports."""
    import onnx

    if not proto.HasField("graph"):
        raise ModelError(
            "The file holds no ONNX graph.",
            hint="Expected a serialized ONNX ModelProto; download or export the model again.",
        )
    if proto.ir_version < 1:
        raise ModelError(
            "The model has IR version {found}; expected 1 to {newest}.",
            hint="The file is damaged or is not an ONNX model: export it again.",
            found=proto.ir_version,
            newest=onnx.IR_VERSION,
        )
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            "The model has IR version {found}; the newest that onnx {version} reads is {newest}.",
            hint="pip install --upgrade onnx, or export the model with an older IR version.",
            found=proto.ir_version,
            version=onnx.__version__,
            newest=onnx.IR_VERSION,
        )
    settle_opsets(proto)


def settle_opsets(proto: onnx.ModelProto) -> None:
    """Write `ai.onnx` as the default domain, drop repeated imports, check the versions."""
    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise ModelError(
                "The model imports opset {first} and opset {second} of {domain}.",
                hint="A model has one version of each operator set: export it again.",
                first=versions[domain],
                second=entry.version,
                domain=domain_name(domain),
            )
    if not versions and proto.ir_version < 3:
        versions[""] = 1  # the ONNX specification's rule for IR versions 1 and 2
    for domain, version in versions.items():
        check_opset(domain, version)
    del proto.opset_import[:]
    for domain, version in versions.items():
        proto.opset_import.add(domain=domain, version=version)


def check_opset(domain: str, version: int) -> None:
    """Refuse an opset below 1 or newer than the installed onnx."""
    newest = newest_opset(domain)
    if newest is None:
        return
    if version < 1:
        raise ModelError(
            "The model imports opset {found} of {domain}; expected 1 to {newest}.",
            hint="The file is damaged: export the model again.",
            found=version,
            domain=domain_name(domain),
            newest=newest,
        )
    if version > newest:
        raise ModelError(
            "The model needs opset {found} of {domain}; the newest supported is {newest}.",
            hint="pip install --upgrade onnx, or export the model with an older opset.",
            found=version,
            domain=domain_name(domain),
            newest=newest,
        )


def newest_opset(domain: str) -> int | None:
    """The newest version of a standard operator set; None for a custom one."""
    if domain not in _STANDARD:
        return None
    from onnx.helper import VERSION_TABLE

    newest = VERSION_TABLE[-1]  # release, IR, ai.onnx, ai.onnx.ml, ai.onnx.training, …
    column = {"": 2, "ai.onnx.ml": 3}.get(domain)
    return 1 if column is None else int(newest[column])


def domain_name(domain: str) -> str:
    """How an operator set is called in a message."""
    return shown(domain) if domain else "ai.onnx"
