"""How weights are stored: bits, scales, and what stays in 16 bits, for each precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from autoglm.llm import fields
from autoglm.llm.weights import Role, Weight

_QUANTISED = frozenset({Role.ATTENTION, Role.DENSE, Role.EXPERT, Role.SHARED})
METHODS = ("awq", "bitsandbytes", "compressed-tensors", "fp8", "gptq")


@dataclass(frozen=True, slots=True)
class Storage:
    """One way to store the weights; the matrices of layers in `bits`, the rest in `high_bits`.

    A scale of `scale_bytes` (and a zero point of `zero_bits`) serves a block of `block_rows`
    outputs by `block_columns` inputs; 0 means all there are.
    """

    name: str
    bits: int
    high_bits: int = 16
    block_rows: int = 1
    block_columns: int = 0
    scale_bytes: float = 0.0
    zero_bits: int = 0
    head: bool = False  # whether the head is quantised too

    @property
    def value_bytes(self) -> int:
        """Bytes of one value of an activation, or of the key-value cache."""
        return self.high_bits // 8

    def bytes_of(self, weight: Weight) -> float:
        """Bytes of all copies of a weight, scales included."""
        if weight.role not in _QUANTISED and not (self.head and weight.role is Role.HEAD):
            return weight.elements * self.high_bits / 8
        if not self.scale_bytes:
            return weight.elements * self.bits / 8
        rows = self.block_rows or weight.rows
        columns = self.block_columns or weight.columns
        blocks = -(-weight.rows // rows) * -(-weight.columns // columns) * weight.copies
        return weight.elements * self.bits / 8 + blocks * (self.scale_bytes + self.zero_bits / 8)


STORAGES: Mapping[str, Storage] = {
    "fp32": Storage("fp32", 32, high_bits=32),
    "bf16": Storage("bf16", 16),
    "fp16": Storage("fp16", 16),
    "int8": Storage("int8", 8, scale_bytes=2),
    "int4": Storage("int4", 4, block_columns=128, scale_bytes=2, zero_bits=4),
}


def checkpoint_storage(quantization: Mapping[str, Any] | None, dtype: str) -> Storage:
    """How the checkpoint itself is stored; ModelError where its quantisation is not known."""
    if quantization is None:
        return STORAGES[dtype]
    method = fields.text(quantization, "quant_method")
    if not method and ("load_in_4bit" in quantization or "load_in_8bit" in quantization):
        method = "bitsandbytes"
    readers = {
        "gptq": _gptq,
        "awq": _awq,
        "fp8": _fp8,
        "bitsandbytes": _bitsandbytes,
        "compressed-tensors": _compressed,
    }
    if method not in readers:
        raise fields.unplanned(
            "quantization_config.quant_method", method or None, ", ".join(METHODS)
        )
    return readers[method](quantization)


def _grouped(name: str, bits: int, group: int, zero_bits: int, *, head: bool = False) -> Storage:
    """Groups of `group` inputs; -1 means one for each output."""
    size = f" g{group}" if group > 0 else ""
    return Storage(
        f"{name} int{bits}{size}",
        bits,
        block_columns=max(group, 0),
        scale_bytes=2,
        zero_bits=zero_bits,
        head=head,
    )


def _bits(table: Mapping[str, Any], field: str) -> int:
    bits = fields.whole(table, field, 4)
    if bits not in (2, 3, 4, 8):
        raise fields.refuse(f"quantization_config.{field}", bits, "2, 3, 4, 8")
    return bits


def _gptq(table: Mapping[str, Any]) -> Storage:
    bits = _bits(table, "bits")
    group = fields.whole(table, "group_size", 128, low=-1)
    # GPTQ files hold zero points of symmetric weights too.
    return _grouped("gptq", bits, group, bits, head=fields.flag(table, "lm_head"))


def _awq(table: Mapping[str, Any]) -> Storage:
    name = "bits" if "bits" in table else "w_bit"
    bits = _bits(table, name)
    group = fields.whole(
        table, "group_size" if "group_size" in table else "q_group_size", 128, low=-1
    )
    return _grouped("awq", bits, group, bits if fields.flag(table, "zero_point", True) else 0)


def _fp8(table: Mapping[str, Any]) -> Storage:
    block = table.get("weight_block_size")
    if block is None:
        return Storage("fp8", 8, scale_bytes=4, block_rows=0)
    if not isinstance(block, list) or [type(b) for b in block] != [int, int] or min(block) < 1:
        raise fields.refuse(
            "quantization_config.weight_block_size", block, "two whole numbers above 0"
        )
    return Storage("fp8", 8, block_rows=block[0], block_columns=block[1], scale_bytes=4)


def _bitsandbytes(table: Mapping[str, Any]) -> Storage:
    if fields.flag(table, "load_in_8bit"):
        return Storage("bitsandbytes int8", 8, scale_bytes=4)
    kind = fields.text(table, "bnb_4bit_quant_type", "fp4")
    # One fp32 scale for 64 weights; doubly quantised, one byte and an fp32 for 256 of those.
    scale = 1 + 4 / 256 if fields.flag(table, "bnb_4bit_use_double_quant") else 4.0
    return Storage(f"bitsandbytes {kind}", 4, block_columns=64, scale_bytes=scale)


def _compressed(table: Mapping[str, Any]) -> Storage:
    groups = fields.table(table, "config_groups")
    if not groups:
        raise fields.refuse("quantization_config.config_groups", None, "a table of groups")
    first = fields.table(groups, next(iter(groups))) or {}
    weights = fields.table(first, "weights")
    if weights is None:
        raise fields.refuse("quantization_config.config_groups.weights", None, "a table")
    bits = _bits(weights, "num_bits")
    kind = fields.text(weights, "type", "int")
    group = fields.whole(weights, "group_size", -1, low=-1)
    zero = 0 if fields.flag(weights, "symmetric", True) else bits
    found = _grouped("compressed-tensors", bits, group, zero)
    if kind == "float":
        found = replace(found, name=f"compressed-tensors fp{bits}")
    if fields.text(weights, "strategy") == "tensor":
        found = replace(found, block_rows=0, block_columns=0, scale_bytes=4)
    return found
