"""Runs in the toolchain's own Python, which need not be ours: keeps one BModel loaded on the
vendor's C-model simulator and runs it.

A question is an .npz of the inputs, the answer one of the outputs, by the BModel's names.
"""

import io
import sys
from multiprocessing.connection import Connection
from typing import Any

import numpy as np


def main() -> None:
    path, fd = sys.argv[1:]
    pipe = Connection(int(fd))
    import pyruntime_bm  # type: ignore[import-not-found]

    model = pyruntime_bm.Model(path)
    net = model.Net(model.networks[0])
    while True:
        try:
            message = pipe.recv_bytes()
        except EOFError:
            return
        try:
            reply = b"+" + answer(net, np.load(io.BytesIO(message)))
        except Exception as error:
            reply = b"-" + f"{type(error).__name__}: {error}".encode()
        pipe.send_bytes(reply)


def answer(net: Any, feeds: Any) -> bytes:
    """Run once."""
    shapes = []
    for tensor in net.inputs:
        value = feeds[tensor.name]
        if value.size != tensor.data.size:
            raise ValueError(f"{tensor.name} has {value.size} elements, not {tensor.data.size}")
        tensor.data.reshape(-1)[:] = held(tensor.name, value.reshape(-1), tensor.data.dtype)
        shapes.append(list(value.shape))
    found = net.forward_dynamic(shapes)
    sink = io.BytesIO()
    np.savez(
        sink, **{t.name: shaped(t, shape) for t, shape in zip(net.outputs, found, strict=True)}
    )
    return sink.getvalue()


def held(name: str, value: Any, dtype: Any) -> Any:
    """The values in the BModel's type, which has no 64-bit integers; never wrapped."""
    if value.dtype.kind in "iu" and dtype.kind in "iu" and value.size:
        limits = np.iinfo(dtype)
        least, most = int(value.min()), int(value.max())
        if least < limits.min or most > limits.max:
            raise ValueError(
                f"{name} holds {least} to {most}; the BModel takes {dtype.name} there,"
                f" {limits.min} to {limits.max}"
            )
    return value.astype(dtype)


def shaped(tensor: Any, shape: Any) -> Any:
    """An output as the model gives it: real numbers, and only as many as there are."""
    data = np.array(tensor.data)
    if tensor.dtype == "bf16":
        data = (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif tensor.dtype == "f16":
        data = data.view(np.float16).astype(np.float32)
    elif data.dtype in (np.int8, np.uint8) and tensor.qscale not in (0, 1):
        data = (data.astype(np.float32) - tensor.qzero_point) * np.float32(tensor.qscale)
    count = int(np.prod(shape))
    return data.reshape(-1)[:count].reshape(shape)


if __name__ == "__main__":
    main()
