"""PyTorch files: checked from outside, then opened by torch's own readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.errors import ModelError
from autoglm.frontends.torch.archive import Archive, inspect
from autoglm.spec import Value

if TYPE_CHECKING:
    import onnx_ir as ir


def load_file(path: Path, example_inputs: Sequence[Value] | None) -> ir.Model:
    """A .pt2 or TorchScript archive as an ONNX model."""
    from autoglm.frontends.torch.export import export, need_torch
    from autoglm.frontends.torch.policy import check_pt2, check_torchscript

    archive = inspect(path)
    need_torch(str(path))
    if archive.kind == "pt2":
        check_pt2(archive)
        return export(_open_pt2(archive), example_inputs)
    check_torchscript(archive)
    # A traced archive may carry the inputs of its trace; they give the shapes if nobody else does.
    restore = example_inputs is None and "traced_inputs.pkl" in archive.names
    return export(_open_torchscript(archive, restore), example_inputs)


def _open_pt2(archive: Archive) -> Any:
    import torch

    from autoglm.frontends.torch.export import quiet

    try:
        with quiet(), archive.path.open("rb") as stream:
            program = torch.export.load(stream)
    except Exception as error:  # torch raises whatever its parsers meet in a damaged file
        raise _damaged(archive, "torch.export.load", error) from error
    # Guards are Python source from the file; exporting needs none of them.
    program._guards_code = []
    return program


def _open_torchscript(archive: Archive, restore: bool) -> Any:
    import torch

    from autoglm.frontends.torch.export import quiet

    try:
        with quiet(), archive.path.open("rb") as stream:
            return torch.jit.load(stream, map_location="cpu", _restore_shapes=restore)
    except Exception as error:  # torch raises whatever its parsers meet in a damaged file
        raise _damaged(archive, "torch.jit.load", error) from error


def _damaged(archive: Archive, reader: str, error: Exception) -> ModelError:
    import torch

    lines = str(error).strip().splitlines()
    return ModelError(
        "{path} cannot be opened by {reader} of PyTorch {version}: {reason}.",
        hint="Save it again with this version of PyTorch, or export it to ONNX.",
        path=archive.path,
        reader=reader,
        version=torch.__version__,
        reason=(lines[0] if lines else type(error).__name__)[:300],
    )
