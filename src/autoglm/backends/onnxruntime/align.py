"""Align every weight in an ONNX model's data file; the engine packs small ones densely."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import onnx

PAGE = 4096
_CHUNK = 1 << 24
_PACKED = "prepacked_"


def align_weights(path: Path, alignment: int) -> None:
    """Rewrite the data file: every weight starts on `alignment`, those of a page on a page.

    Raises ValueError, and changes nothing, where an entry has a form that is not known.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    tensors = [t for t in _tensors(model.graph) if t.external_data]
    if not tensors:
        return
    source = path.with_name(_value(tensors[0], "location"))
    target = source.with_suffix(".aligned")
    try:
        with source.open("rb") as read, target.open("wb") as write:
            for tensor in tensors:
                _move(tensor, read, write, alignment)
        onnx.save(model, str(path))
        os.replace(target, source)
    finally:
        target.unlink(missing_ok=True)


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                found += _tensors(inner)
    return found


def _value(tensor: onnx.TensorProto, key: str) -> str:
    return next((str(e.value) for e in tensor.external_data if e.key == key), "0")


def _move(tensor: onnx.TensorProto, read: BinaryIO, write: BinaryIO, alignment: int) -> None:
    length = int(_value(tensor, "length"))
    for entry in tensor.external_data:
        if entry.key == "offset":
            entry.value = str(_copy(read, write, int(entry.value), length, alignment))
        elif entry.key.startswith(_PACKED):
            entry.value = _move_packed(entry.value, read, write, alignment)


def _move_packed(text: str, read: BinaryIO, write: BinaryIO, alignment: int) -> str:
    # "kernel+hash|offset;length;checksum|offset;length;checksum…"
    kernel, *blobs = text.split("|")
    moved = []
    for blob in blobs:
        offset, length, checksum = blob.split(";")
        place = _copy(read, write, int(offset), int(length), alignment)
        moved.append(f"{place};{length};{checksum}")
    return "|".join([kernel, *moved])


def _copy(read: BinaryIO, write: BinaryIO, offset: int, length: int, alignment: int) -> int:
    step = max(alignment, PAGE) if length >= PAGE else alignment
    place = -(-write.tell() // step) * step
    write.seek(place)
    read.seek(offset)
    while length > 0:
        data = read.read(min(length, _CHUNK))
        if not data:
            raise ValueError("the data file ends early")
        write.write(data)
        length -= len(data)
    return place
