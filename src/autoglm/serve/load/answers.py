"""What a model takes and gives, and whether an answer is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError

from autoglm.errors import AutoGLMError, ServeError
from autoglm.serve.load.refusal import NoServerError
from autoglm.serve.proto.tensors import from_oip
from autoglm.spec import TensorInfo, Value
from autoglm.tensor.accuracy import compare
from autoglm.tensor.dtype import DTYPES, from_numpy

Outputs: TypeAlias = Mapping[str, Value]
Headers: TypeAlias = Mapping[bytes, bytes]
Decode: TypeAlias = Callable[[bytes, Headers], Outputs]
NO_HEADERS: Headers = {}
# How far an answer may be from the first, of its largest value: a batch is summed in another order.
_APART, _APART_HALF = 1e-4, 2e-2
UNREADABLE = (AutoGLMError, ValueError, LookupError, TypeError, AttributeError, DecodeError)


@dataclass(frozen=True, slots=True)
class Signature:
    """A served model's inputs and outputs, as the server tells them."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def unfit(self, outputs: Outputs) -> list[str]:
        """What of an answer is not as the server said; [] where it said nothing."""
        if not self.outputs:
            return []
        known = {info.name: info for info in self.outputs}
        missing = [f"output {name} is missing" for name in known if name not in outputs]
        found = (_unfit(known.get(name), name, value) for name, value in outputs.items())
        return [*missing, *(text for text in found if text)]


def signature(metadata: Callable[[], Mapping[str, Any]], url: str) -> Signature:
    """From the Open Inference Protocol's model metadata."""
    try:
        message = metadata()
        return Signature(_infos(message["inputs"]), _infos(message["outputs"]))
    except UNREADABLE as error:
        raise NoServerError(
            "The server at {url} does not tell the model's inputs and outputs: {reason}.",
            hint="Give the inputs with --inputs FILE, or --shape NAME=1,128.",
            url=url,
            reason=str(error) or type(error).__name__,
        ) from error


def _infos(tensors: Sequence[Mapping[str, Any]]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            str(t["name"]),
            from_oip(str(t["name"]), str(t["datatype"])),
            tuple(int(d) if int(d) >= 0 else None for d in t["shape"]),
        )
        for t in tensors
    )


def _unfit(info: TensorInfo | None, name: str, value: Value) -> str:
    if info is None:
        return f"output {name} is not in the model's metadata"
    array = np.asarray(value)
    dims = info.shape or ()
    same = len(dims) == array.ndim and all(
        d is None or d == n for d, n in zip(dims, array.shape, strict=True)
    )
    if same and _dtype(array) == info.dtype:
        return ""
    said = "x".join("?" if d is None else str(d) for d in dims)
    found = "x".join(map(str, array.shape))
    return f"output {name} is {_dtype(array)} {found}; the metadata says {info.dtype} {said}"


def _dtype(array: np.ndarray) -> str:
    return "string" if array.dtype.kind in "OUS" else from_numpy(array.dtype)


class Judge:
    """Compares each answer with the first; equal bytes cost no decoding."""

    def __init__(self, decode: Decode, body: bytes, headers: Headers = NO_HEADERS) -> None:
        self._decode = decode
        self.body = body
        self.outputs = read(decode, body, headers)
        self._apart = {name: _apart(np.asarray(value)) for name, value in self.outputs.items()}

    def difference(self, body: bytes, headers: Headers = NO_HEADERS) -> str:
        """What differs from the first answer; "" where nothing does."""
        if body == self.body:
            return ""
        try:
            outputs = read(self._decode, body, headers)
        except ServeError as error:
            return str(error)
        if outputs.keys() != self.outputs.keys():
            return f"outputs {', '.join(outputs)}; first {', '.join(self.outputs)}"
        for name, value in self.outputs.items():
            found = compare(value, outputs[name])
            if found.max_relative > self._apart[name]:
                return f"{name}: {found.detail}"
        return ""


def _apart(array: np.ndarray) -> float:
    """How far, relative to the largest value, an answer's output may be from the first one's."""
    row = DTYPES[_dtype(array)]
    if row.kind not in ("float", "complex"):
        return 0.0
    return _APART if row.bits >= 32 else _APART_HALF


def read(decode: Decode, body: bytes, headers: Headers = NO_HEADERS) -> Outputs:
    """The outputs in an answer; ServeError where it is none."""
    try:
        return decode(body, headers)
    except UNREADABLE as error:
        if isinstance(error, ServeError):
            raise
        raise ServeError(
            "The answer cannot be read: {reason}.",
            hint="Is it the protocol of that server? --protocol names another.",
            reason=str(error)[:200] or type(error).__name__,
        ) from error
