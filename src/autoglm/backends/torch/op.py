"""One row of the operator table, and a node as its kernel sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import torch

from autoglm.backends.torch.dtypes import TORCH
from autoglm.rewrite.program import Body, Call

Kernel: TypeAlias = Callable[..., Any]


class Kind(Enum):
    """What a kernel does with dtypes that torch cannot compute in: wide unsigned, fp8."""

    VALUE = "value"  # computes: unsigned integers go through int64
    ORDER = "order"  # compares: as VALUE, with uint64 mapped to int64 in the same order
    MOVE = "move"  # only moves elements: they travel as bits
    NATIVE = "native"  # the kernel knows them


@dataclass(frozen=True, slots=True)
class Op:
    """How one version of one operator runs."""

    run: Kernel
    host: tuple[int, ...] = ()  # inputs that the kernel takes as Python numbers and lists
    kind: Kind = Kind.VALUE
    check: Callable[[Call], str] | None = None  # why a node cannot be taken; "" where it can
    bare: bool = False  # `run` is a torch function that needs no node
    high: bool = False  # stays in fp32 when the session runs in fp16 or bf16


Versions: TypeAlias = Mapping[int, Op]
Table: TypeAlias = Mapping[str, Op | Versions]


@dataclass(frozen=True, slots=True)
class Node:
    """A call on a device; `node["axis"]` reads an attribute, None where it has no default."""

    call: Call
    device: torch.device
    low: torch.dtype | None = None  # what float32 became

    def __getitem__(self, attribute: str) -> Any:
        return self.call.attributes.get(attribute)

    @property
    def since(self) -> int:
        """The operator's version."""
        return self.call.since

    @property
    def arity(self) -> int:
        """Number of the node's own inputs; captured values of its bodies follow."""
        return self.call.arity

    @property
    def wanted(self) -> tuple[bool, ...]:
        """Which outputs someone reads."""
        return self.call.wanted

    @property
    def bodies(self) -> Mapping[str, Body]:
        """The sub-graphs by attribute name."""
        return self.call.bodies

    def held(self, name: str) -> torch.dtype:
        """The torch dtype that holds `name` in this session."""
        return self.low if self.low is not None and name == "float32" else TORCH[name]

    def out(self, index: int = 0) -> torch.dtype:
        """The torch dtype of an output."""
        return self.held(self.call.outputs[index])


def bare(run: Kernel, kind: Kind = Kind.VALUE) -> Op:
    """A torch function that is the operator already."""
    return Op(run, kind=kind, bare=True)


def move(run: Kernel, host: tuple[int, ...] = ()) -> Op:
    """A kernel that only moves elements."""
    return Op(run, host=host, kind=Kind.MOVE)
