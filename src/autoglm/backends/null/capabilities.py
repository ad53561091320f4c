"""A table that has every operator; only for tests of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from autoglm.spec import Capabilities, Evidence, OpRule, yes

_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-dynamic")


class _Everything(Mapping[str, OpRule]):
    """Answers for any operator name; lists none."""

    _rule = OpRule(evidence=Evidence.DOCUMENT)

    def __getitem__(self, op: str) -> OpRule:
        return self._rule

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def table() -> Capabilities:
    """Every operator, in every precision, slower than any engine so that no plan prefers it."""
    return Capabilities(
        "null",
        "null 1",
        _Everything(),
        precisions={name: yes(Evidence.DOCUMENT) for name in _PRECISIONS},
        evidence=Evidence.DOCUMENT,
        speed=1e-6,
    )
