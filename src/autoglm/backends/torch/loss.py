"""Classification losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from autoglm.backends.torch.op import Node, Op, Table


def negative_log_likelihood(
    node: Node, x: Tensor, target: Tensor, weight: Tensor | None = None
) -> Tensor:
    """torch's own; the mean is weighted."""
    ignored = -100 if node["ignore_index"] is None else node["ignore_index"]
    return F.nll_loss(x, target.long(), weight, ignore_index=ignored, reduction=node["reduction"])


def cross_entropy(
    node: Node, x: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The loss, and the log-probabilities."""
    logs = torch.log_softmax(x, 1)
    return negative_log_likelihood(node, logs, target, weight), logs


TABLE: Table = {
    "NegativeLogLikelihoodLoss": Op(negative_log_likelihood),
    "SoftmaxCrossEntropyLoss": Op(cross_entropy),
}
