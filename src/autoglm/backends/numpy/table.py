"""The one table: ONNX operator (and version) -> kernel."""

from __future__ import annotations

from autoglm.backends.numpy import (
    arithmetic,
    cast,
    classic,
    deform,
    image,
    quant,
    random,
    recurrent,
    sequence,
    shape,
    signal,
    text,
    train,
    window,
)
from autoglm.backends.numpy.op import Table

TABLE: Table = {
    **arithmetic.TABLE,
    **shape.TABLE,
    **cast.TABLE,
    **quant.TABLE,
    **text.TABLE,
    **image.TABLE,
    **signal.TABLE,
    **sequence.TABLE,
    **classic.TABLE,
    **window.TABLE,
    **deform.TABLE,
    **train.TABLE,
    **recurrent.TABLE,
    **random.TABLE,
}
