"""Answer zeros of the declared shapes."""

from __future__ import annotations

from typing import Any

from autoglm.errors import ExecutionError
from autoglm.spec import Artifact, Closing, Dim, Feeds, TensorInfo, Value
from autoglm.tensor.dtype import to_numpy
from autoglm.tensor.feeds import check_feeds


class NullSession(Closing):
    """Checks its feeds like any session, then answers zeros, `""` and empty sequences."""

    def __init__(self, artifact: Artifact) -> None:
        self.inputs: tuple[TensorInfo, ...] = artifact.inputs
        self.outputs: tuple[TensorInfo, ...] = artifact.outputs
        self._closed = False

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Zeros; a symbolic size is the one found in the feeds, else 1."""
        if self._closed:
            raise ExecutionError("The session is closed.")
        checked = check_feeds(self.inputs, feeds)
        sizes = _symbols(self.inputs, checked)
        return {info.name: _zero(info, sizes) for info in self.outputs}

    def close(self) -> None:
        """Nothing to free; later runs are refused."""
        self._closed = True


def _symbols(inputs: tuple[TensorInfo, ...], feeds: dict[str, Value]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for info in inputs:
        if info.kind == "tensor" and info.shape is not None:
            pairs = zip(info.shape, feeds[info.name].shape, strict=True)
            sizes.update({dim: size for dim, size in pairs if isinstance(dim, str)})
    return sizes


def _zero(info: TensorInfo, sizes: dict[str, int]) -> Any:
    import numpy as np

    if info.kind == "sequence":
        return []
    if info.kind == "optional":
        return None
    shape = [_size(dim, sizes) for dim in info.shape or ()]
    if info.dtype == "string":
        return np.full(shape, "", object)
    return np.zeros(shape, to_numpy(info.dtype or "float32"))


def _size(dim: Dim, sizes: dict[str, int]) -> int:
    return dim if isinstance(dim, int) else sizes.get(dim or "", 1)
