"""Split a serialized ModelProto into a light skeleton and the spans of its weights.

Weights stay where they are (a mapped file, the caller's bytes): only the skeleton is parsed, so a
model of gigabytes costs no more memory than its graph. Only what this module needs of protobuf's
wire format is read here; everything else is left to protobuf's own parser.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autoglm.errors import LimitError, ModelError

_GRAPH, _INITIALIZER, _NODE, _RAW_DATA = 7, 5, 1, 9  # field numbers of onnx.proto
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_INLINE_BYTES = 4096  # smaller weights stay in the skeleton; shape arguments are among them
MAX_NODES = 1_000_000
_MAX_FIELDS = 4_000_000


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: where its tag begins, where its content lies."""

    number: int
    wire: int
    tag: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A ModelProto without its large weights; `spans` maps initializer index -> (start, end)."""

    data: bytes
    spans: dict[int, tuple[int, int]]


def split(data: memoryview) -> Skeleton:
    """The skeleton of a serialized ModelProto; ModelError says where the bytes go wrong."""
    parts: list[memoryview | bytes] = []
    spans: dict[int, tuple[int, int]] = {}
    index = 0
    for field in fields(data, 0, len(data)):
        if field.number == _GRAPH and field.wire == _LENGTH:
            graph, index = _split_graph(data, field, index, spans)
            parts += [_head(_GRAPH, sum(map(len, graph))), *graph]
        else:
            parts.append(data[field.tag : field.end])
    return Skeleton(b"".join(parts), spans)


def fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in `data[start:end]`."""
    at = start
    while at < end:
        tag = at
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == _LENGTH:
            size, at = _varint(data, at, end)
        elif wire == _VARINT:
            _, after = _varint(data, at, end)
            size = after - at
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise _broken(tag, f"wire type {wire}")
        if number == 0:
            raise _broken(tag, "field number 0")
        if size > end - at:
            raise ModelError(
                "The file ends too early: the field at byte {at} needs {need} bytes of {left}.",
                hint="The file is truncated or damaged: download or export it again.",
                at=tag,
                need=size,
                left=end - at,
            )
        yield Field(number, wire, tag, at, at + size)
        at += size


def _split_graph(
    data: memoryview, graph: Field, index: int, spans: dict[int, tuple[int, int]]
) -> tuple[list[memoryview | bytes], int]:
    parts: list[memoryview | bytes] = []
    kept = graph.start  # everything since here goes into the skeleton unchanged
    nodes = 0
    for count, field in enumerate(fields(data, graph.start, graph.end)):
        nodes += field.number == _NODE
        if nodes > MAX_NODES or count > _MAX_FIELDS:
            raise LimitError(
                "The graph has more than {limit} nodes; that is more than any real model.",
                limit=MAX_NODES,
            )
        if field.number != _INITIALIZER or field.wire != _LENGTH:
            continue
        if field.end - field.start > _INLINE_BYTES:
            light = _without_raw(data, field, index, spans)
            if light is not None:
                parts += [data[kept : field.tag], _head(_INITIALIZER, sum(map(len, light))), *light]
                kept = field.end
        index += 1
    return [*parts, data[kept : graph.end]], index


def _without_raw(
    data: memoryview, tensor: Field, index: int, spans: dict[int, tuple[int, int]]
) -> list[memoryview | bytes] | None:
    parts: list[memoryview | bytes] = []
    raw: Field | None = None
    for field in fields(data, tensor.start, tensor.end):
        if field.number == _RAW_DATA and field.wire == _LENGTH:
            raw = field  # protobuf keeps the last one
        else:
            parts.append(data[field.tag : field.end])
    if raw is None or raw.end - raw.start <= _INLINE_BYTES:
        return None
    spans[index] = (raw.start, raw.end)
    return parts


def _head(number: int, size: int) -> bytes:
    head = bytearray([number << 3 | _LENGTH])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _broken(at, "a number that does not end")


def _broken(at: int, what: str) -> ModelError:
    return ModelError(
        "The file is not an ONNX model: at byte {at} it has {what}, which protobuf does not allow.",
        hint="Expected a serialized ONNX ModelProto; download or export the model again.",
        at=at,
        what=what,
    )
