"""Sampling by a grid."""

from __future__ import annotations

import paddle.nn.functional as F

from .op import Node, Op, Refused, Table, Value, rank

_MODES = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest"}


def grid_sample(node: Node, x: Value, grid: Value) -> Value:
    """Two spatial axes, linear or nearest."""
    mode = _MODES.get(node["mode"], "")
    if rank(x) != 4 or not mode:
        raise Refused(
            f"takes 2 spatial axes, linear or nearest; found {rank(x) - 2}, {node['mode']}"
        )
    corners = bool(node["align_corners"])
    return F.grid_sample(x, grid, mode, node["padding_mode"], corners)


def affine_grid(node: Node, theta: Value, shape: list[int]) -> Value:
    """Where each place of an image of that shape comes from."""
    return F.affine_grid(theta, shape, bool(node["align_corners"]))


TABLE: Table = {"GridSample": Op(grid_sample), "AffineGrid": Op(affine_grid, host=(1,))}
