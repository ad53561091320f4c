"""Answers in this process: bounded in bytes, the least recently used go first, none gets old."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

import numpy as np

from autoglm.serve.core import Response

_OVERHEAD = 512  # bytes of an entry beside its tensors, about


class Memory:
    """Called on the event loop only."""

    def __init__(
        self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._max, self._ttl, self._clock = max_bytes, ttl_s, clock
        self._held: OrderedDict[bytes, tuple[float, int, Response]] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: bytes) -> Response | None:
        """The answer, whose arrays are read-only; None where it is not there or too old."""
        found = self._held.get(key)
        if found is None:
            return None
        made, _, answer = found
        if self._clock() - made >= self._ttl:
            self._drop(key)
            return None
        self._held.move_to_end(key)
        return answer

    def put(self, key: bytes, answer: Response) -> None:
        """Keep `answer`; one over a quarter of the whole budget would empty the cache, and is
        left out.
        """
        size = _OVERHEAD + sum(_nbytes(v) for v in answer.outputs.values())
        if size > self._max // 4:
            return
        if key in self._held:
            self._drop(key)
        self._held[key] = (self._clock(), size, answer)
        self.nbytes += size
        while self.nbytes > self._max:
            self._drop(next(iter(self._held)))

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self.nbytes = 0

    def _drop(self, key: bytes) -> None:
        self.nbytes -= self._held.pop(key)[1]


def frozen(answer: Response) -> Response | None:
    """A copy that is safe to share: own, read-only arrays and no id; None if it is not tensors.

    A row cut out of a batch would keep the whole batch alive, so views are copied.
    """
    outputs = {}
    for name, value in answer.outputs.items():
        if not isinstance(value, np.ndarray):
            return None
        own = value if value.base is None else value.copy()
        own.flags.writeable = False
        outputs[name] = own
    return replace(answer, outputs=outputs, id="", parameters=dict(answer.parameters))


def shared(answer: Response) -> Response:
    """An answer for one who asked: its dicts are its own, its arrays are shared and read-only."""
    return replace(answer, outputs=dict(answer.outputs), parameters=dict(answer.parameters))


def _nbytes(value: np.ndarray) -> int:
    if value.dtype == object:
        return sum(64 + 4 * len(str(item)) for item in value.ravel())
    return value.nbytes
