"""The one table: ONNX operator (and version) -> kernel."""

from __future__ import annotations

from autoglm.backends.torch import (
    activation,
    attention,
    control,
    conv,
    elementwise,
    index,
    linear_attention,
    loss,
    matmul,
    norm,
    pool,
    quant,
    random,
    reduce,
    resize,
    rnn,
    shape,
    signal,
    train,
    vision,
)
from autoglm.backends.torch.op import Table

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
    **resize.TABLE,
    **vision.TABLE,
    **rnn.TABLE,
    **attention.TABLE,
    **linear_attention.TABLE,
    **quant.TABLE,
    **control.TABLE,
    **signal.TABLE,
    **loss.TABLE,
    **train.TABLE,
    **random.TABLE,
}
