"""The one table: ONNX operator (and version) -> how it is written in Paddle."""

from __future__ import annotations

from . import (
    activation,
    conv,
    elementwise,
    index,
    matmul,
    norm,
    pad,
    pool,
    quant,
    reduce,
    resize,
    rnn,
    shape,
    vision,
)
from .op import Node, Op, Refused, Table

TABLE: Table = {
    **elementwise.TABLE,
    **activation.TABLE,
    **reduce.TABLE,
    **shape.TABLE,
    **index.TABLE,
    **matmul.TABLE,
    **conv.TABLE,
    **pool.TABLE,
    **norm.TABLE,
    **pad.TABLE,
    **resize.TABLE,
    **vision.TABLE,
    **quant.TABLE,
    **rnn.TABLE,
}


def find(node: Node) -> Op:
    """The row for this node."""
    entry = TABLE.get(node.op)
    if isinstance(entry, dict):
        entry = next((entry[v] for v in sorted(entry, reverse=True) if v <= node.since), None)
    if not isinstance(entry, Op):
        raise Refused("is not mapped to Paddle")
    return entry
