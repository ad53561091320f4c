"""A model's weights in one aligned file beside the graph, to be mapped, not read.

Two processes that map one file share its pages; an engine that maps it needs no copy. Tensors of
the same bytes are stored once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoglm.errors import FileMissingError, ModelError
from autoglm.tensor.arena import check_alignment
from autoglm.tensor.files import CHUNK, atomic_file

if TYPE_CHECKING:
    import onnx_ir as ir

PAGE = 4096


def save_onnx(
    model: ir.Model, path: Path, *, alignment: int = 64, inline_below: int = 1024
) -> Path:
    """Write the graph to `path`, its weights to `<stem>.data` beside it; the model is unchanged.

    Each weight starts at a multiple of `alignment`, one of a page or more also on a page. What is
    smaller than `inline_below` bytes, and text, stays in the graph. The location is relative: the
    folder can move. At most one weight is in memory at a time, none whole where they are mapped.
    """
    import onnx_ir as ir

    check_alignment(alignment)
    values = _large(model, inline_below)
    data = path.with_name(f"{path.stem}.data")
    before = [(value, value.const_value) for value in values]
    with atomic_file(path) as graph_file:
        try:
            if values:
                with atomic_file(data) as sink:
                    places = _write(values, sink, alignment)
                    path.unlink(missing_ok=True)  # an older graph must never meet the new weights
                for value, offset in zip(values, places, strict=True):
                    value.const_value = _external(value, data, offset)
            ir.save(model, graph_file, format="protobuf")
        finally:
            for value, tensor in before:
                if not _same_file(tensor, data):
                    value.const_value = tensor
    return path


def load_onnx(path: Path) -> ir.Model:
    """The model at `path`, its weights mapped. For our own files; others take the ONNX frontend."""
    import onnx_ir as ir
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise FileMissingError("File {path} is not there.", path=str(path))
    try:
        model = ir.load(path)
    except (DecodeError, ValueError, ir.passes.PassError) as error:
        raise ModelError(
            "{path} is not a readable ONNX model: {reason}.",
            path=str(path),
            reason=str(error)[:200],
        ) from error
    for value in _initializers(model):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            _require_inside(path, tensor)
    return model


def _initializers(model: ir.Model) -> list[ir.Value]:
    return [value for graph in model.graphs() for value in graph.initializers.values()]


def _large(model: ir.Model, inline_below: int) -> list[ir.Value]:
    import onnx_ir as ir

    return [
        value
        for value in _initializers(model)
        if value.const_value is not None
        and value.const_value.dtype != ir.DataType.STRING
        and value.const_value.nbytes >= max(inline_below, 1)
    ]


def _write(values: list[ir.Value], path: Path, alignment: int) -> list[int]:
    """Write the weights; the offset of each."""
    sizes = Counter(_tensor(value).nbytes for value in values)
    by_object: dict[int, int] = {}
    by_content: dict[bytes, int] = {}
    places: list[int] = []
    with path.open("wb") as sink:
        for value in values:
            tensor = _tensor(value)
            if id(tensor) not in by_object:
                raw = _bytes(tensor)
                # Only what has a twin in size can have one in content, so the rest is not hashed.
                digest = _digest(raw) if sizes[tensor.nbytes] > 1 else id(tensor).to_bytes(9, "big")
                if digest not in by_content:
                    by_content[digest] = _append(sink, raw, alignment)
                by_object[id(tensor)] = by_content[digest]
            places.append(by_object[id(tensor)])
    return places


def _append(sink: Any, raw: np.ndarray, alignment: int) -> int:
    step = max(alignment, PAGE) if raw.nbytes >= PAGE else alignment
    offset = -(-sink.tell() // step) * step
    sink.seek(offset)  # the gap is a hole that reads as zeros
    for start in range(0, raw.nbytes, CHUNK):
        sink.write(raw[start : start + CHUNK])
    return int(offset)


def _bytes(tensor: ir.TensorProtocol) -> np.ndarray:
    """A tensor as ONNX stores it; a view of its memory where elements fill whole bytes."""
    if tensor.dtype.bitwidth < 8:
        return np.frombuffer(tensor.tobytes(), np.uint8)
    array = np.ascontiguousarray(tensor.numpy())
    return array.reshape(-1).view(np.uint8)


def _digest(raw: np.ndarray) -> bytes:
    digest = hashlib.sha256()
    for start in range(0, raw.nbytes, CHUNK):
        digest.update(raw[start : start + CHUNK].data)
    return digest.digest()


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None
    return value.const_value


def _external(value: ir.Value, data: Path, offset: int) -> ir.ExternalTensor:
    import onnx_ir as ir

    tensor = _tensor(value)
    return ir.ExternalTensor(
        data.name,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=value.name or "",
        base_dir=data.parent,
    )


def _same_file(tensor: Any, data: Path) -> bool:
    """Whether a tensor lived in the file just replaced: then it must live in the new one."""
    import onnx_ir as ir

    return (
        isinstance(tensor, ir.ExternalTensor)
        and Path(tensor.path).absolute() == data.absolute()
        and data.exists()
    )


def _require_inside(path: Path, tensor: ir.ExternalTensor) -> None:
    data = Path(tensor.path)
    end = (tensor.offset or 0) + (tensor.length or 0)
    plain = data.is_file() and not data.is_symlink() and data.parent == path.parent
    if not plain or end > data.stat().st_size:
        raise ModelError(
            "{path}: weight {name!r} is not inside {data}.",
            hint="Copy the model together with its data file.",
            path=str(path),
            name=tensor.name,
            data=str(tensor.location)[:200],
        )
