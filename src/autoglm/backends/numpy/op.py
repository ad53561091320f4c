"""One row of the kernel table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from autoglm.rewrite.program import Call

Array: TypeAlias = np.ndarray[Any, Any]
Kernel: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Op:
    """A kernel, and why it cannot take some node ("" where it can)."""

    run: Kernel
    check: Callable[[Call], str] | None = None


Table: TypeAlias = Mapping[str, Op | Mapping[int, Op]]


def plain(run: Callable[..., Any]) -> Op:
    """A function of the inputs alone."""
    return Op(lambda call, *inputs: run(*inputs))


def scalar(value: Any) -> Any:
    """The one element of an array of any rank, as a Python number."""
    return np.asarray(value).reshape(-1)[0].item()


def listed(value: Array) -> list[int]:
    """A small array of integers, as a flat list."""
    return [int(v) for v in np.asarray(value).reshape(-1)]
