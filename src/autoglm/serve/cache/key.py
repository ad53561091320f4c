"""What makes two requests the same question."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from autoglm.serve.core import Request

_NOT_ASKED = frozenset({"cache", "binary_data_output"})  # parameters that change no answer
_CHUNK = 1 << 20


def key_of(digest: str, request: Request) -> bytes | None:
    """The key of a request to the model of that digest; None where its answer is not to be kept.

    SHA-256, for inputs come from strangers: with a faster hash that is not collision-free one
    client could plant an answer for another's question.
    """
    if not digest or request.parameters.get("cache") is False:
        return None
    head: list[object] = [digest, request.model, sorted(request.outputs)]
    head.append(sorted((k, v) for k, v in request.parameters.items() if k not in _NOT_ASKED))
    hashed = hashlib.sha256()
    for name in sorted(request.inputs):
        value = request.inputs[name]
        if not isinstance(value, np.ndarray):
            return None  # a sequence or an absent optional
        head.append((name, str(value.dtype), value.shape))
    hashed.update(json.dumps(head).encode())
    for name in sorted(request.inputs):
        hashed.update(_bytes(request.inputs[name]))
    return hashed.digest()


def _bytes(value: np.ndarray) -> bytes | memoryview:
    if value.dtype == object:
        return json.dumps([str(item) for item in value.ravel()]).encode()
    flat = np.ascontiguousarray(value).reshape(-1)
    return flat.view(np.uint8).data
