"""Runs in the environment `mindspore`: a small network of our own, and MindSpore's own answer.

    python -I mindspore_models.py FOLDER [NAME ...]

Seeded random weights, no data from anywhere, Apache-2.0 as this repository.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
from mindspore import nn

SEED = 20261122


class Cnn(nn.Cell):  # type: ignore[misc]
    """Convolutions, batch normalisation, a residual, pools, dense."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, pad_mode="same", has_bias=True)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(8, 8, 3, pad_mode="pad", padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.flat = nn.Flatten()
        self.head = nn.Dense(8 * 8 * 8, 10)

    def construct(self, x: Any) -> Any:
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(self.second(x) + x)
        return self.head(self.flat(self.pool(x)))


def main(argv: list[str]) -> int:
    """Write cnn.mindir, cnn-by-hand.onnx (MindSpore's own export) and the answer."""
    folder = Path(argv[0])
    folder.mkdir(parents=True, exist_ok=True)
    mindspore.set_context(mode=mindspore.GRAPH_MODE, device_target="CPU")
    mindspore.set_seed(SEED)
    net = Cnn()
    net.set_train(False)
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((1, 3, 32, 32)).astype(np.float32)
    y = net(mindspore.Tensor(x)).asnumpy()
    mindspore.export(net, mindspore.Tensor(x), file_name=str(folder / "cnn"), file_format="MINDIR")
    mindspore.export(
        net, mindspore.Tensor(x), file_name=str(folder / "cnn-by-hand"), file_format="ONNX"
    )
    np.savez(folder / "cnn.npz", x=x, y=y)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
