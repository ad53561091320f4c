from __future__ import annotations


def certified() -> frozenset[str]:
    from autoglm.rewrite.prepare import PASSES

    return frozenset(PASSES)
