"""Padding and cropping."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle

from .op import Node, Op, Table, Value, axis_of, constant, name_of, rank, scalar, size

_BIG = (1 << 31) - 1


def pad(node: Node, x: Value, pads: Any, value: Any = None, axes: Any = None) -> Value:
    """Constant, reflect, edge or wrap; negative amounts crop first."""
    axes = list(range(rank(x))) if axes is None else [axis_of(a, rank(x)) for a in axes]
    amounts = {a: (pads[i], pads[i + len(axes)]) for i, a in enumerate(axes)}
    return _padded(x, amounts, node["mode"], 0 if value is None else scalar(value))


def pad_2(node: Node, x: Value) -> Value:
    """Amounts and value as attributes."""
    pads = node["pads"] or node["paddings"]
    amounts = {a: (pads[a], pads[a + rank(x)]) for a in range(rank(x))}
    return _padded(x, amounts, node["mode"], node["value"])


def _padded(x: Value, amounts: dict[int, tuple[int, int]], mode: str, fill: Any) -> Value:
    for axis, (before, after) in amounts.items():
        if before == after == 0:
            continue
        x = constant_pad(x, axis, before, after, fill) if mode == "constant" else _gathered(
            x, axis, before, after, mode
        )  # fmt: skip
    return x


def constant_pad(x: Value, axis: int, before: int, after: int, fill: Any) -> Value:
    """Join blocks of `fill` on both sides; negative amounts crop."""
    if before < 0 or after < 0:
        x = paddle.slice(x, [axis], [max(0, -before)], [after if after < 0 else _BIG])
    pieces = [_block(x, axis, before, fill), x, _block(x, axis, after, fill)]
    pieces = [p for p in pieces if p is not None]
    return paddle.concat(pieces, axis) if len(pieces) > 1 else pieces[0]


def _block(x: Value, axis: int, count: int, fill: Any) -> Value:
    if count <= 0:
        return None
    shape = [count if i == axis else int(n) for i, n in enumerate(x.shape)]
    if -1 not in shape:
        return paddle.full(shape, fill, name_of(x))
    first = paddle.full_like(paddle.slice(x, [axis], [0], [1]), fill)
    return paddle.tile(first, [count if i == axis else 1 for i in range(rank(x))])


def _gathered(x: Value, axis: int, before: int, after: int, mode: str) -> Value:
    whole = size(x, axis)
    crop_before, crop_after = max(0, -before), max(0, -after)
    kept = whole - crop_before - crop_after
    places = np.arange(-max(0, before), kept + max(0, after))
    if mode == "edge":
        places = places.clip(0, kept - 1)
    elif mode == "wrap":
        places = places % kept
    elif kept > 1:
        places = places % (2 * (kept - 1))
        places = np.where(places >= kept, 2 * (kept - 1) - places, places)
    else:
        places = np.zeros_like(places)
    return paddle.index_select(x, constant((places + crop_before).astype(np.int64)), axis)


def center_crop_pad(node: Node, x: Value, shape: Any) -> Value:
    """Crop or pad with zeros around the centre."""
    chosen = range(rank(x)) if node["axes"] is None else node["axes"]
    for axis, wanted in zip((axis_of(a, rank(x)) for a in chosen), shape, strict=True):
        extra = wanted - size(x, axis)
        before = extra // 2 if extra >= 0 else -((-extra) // 2)
        if extra:
            x = constant_pad(x, axis, before, extra - before, 0)
    return x


TABLE: Table = {
    "Pad": {1: Op(pad_2), 11: Op(pad, host=(1, 2, 3))},
    "CenterCropPad": Op(center_crop_pad, host=(1,)),
}
