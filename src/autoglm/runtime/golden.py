"""The fp32 answer that certificates compare with, and from which engine it comes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm import registry
from autoglm.errors import AutoGLMError, UnsupportedOperatorError
from autoglm.spec import CompileOptions, Feeds, RunOptions, Session, Value, Verdict

if TYPE_CHECKING:
    import onnx_ir as ir

# The reference evaluator is plain NumPy: above this many operations its answer takes longer than
# it is worth.
_REFERENCE_FLOPS = 3e8


class Golden:
    """Runs a model in fp32 with no optimisation, handing out any intermediate tensor asked for."""

    def __init__(self, model: ir.Model, tensors: Iterable[str] = ()) -> None:
        from autoglm.rewrite.extract import outputs_all

        self._folder = tempfile.TemporaryDirectory(prefix="autoglm-golden-")
        self.engine, self._session = _open(
            outputs_all(model, list(tensors)), Path(self._folder.name)
        )

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Every output and every tensor asked for, by name."""
        return self._session.run(feeds)

    def close(self) -> None:
        """Give the engine and its files back."""
        self._session.close()
        self._folder.cleanup()

    def __enter__(self) -> Golden:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _open(model: ir.Model, folder: Path) -> tuple[str, Session]:
    options = CompileOptions(optimize=False)
    reasons: list[str] = []
    for name in _order(model):
        plug = registry.backend(name)
        place = folder / name
        place.mkdir()
        try:
            return name, plug.open(plug.compile(model, options, place), place, RunOptions())
        except AutoGLMError as error:
            reasons.append(f"{name}: {error}")
    raise UnsupportedOperatorError(
        "No engine here gives an fp32 answer to compare with: {reasons}.",
        reasons="; ".join(reasons),
    )


def _order(model: ir.Model) -> Sequence[str]:
    """Trusted engines first: one whose table has a measured yes for every node."""
    from autoglm.plan import graph_of

    graph = graph_of(model)
    facts = [n.facts for n in graph.nodes]
    flops = sum(n.flops for n in graph.nodes)
    engines = (
        ("reference", "onnxruntime") if flops < _REFERENCE_FLOPS else ("onnxruntime", "reference")
    )
    ranked: dict[str, int] = {}
    for name in (*engines, "torch", "numpy"):
        plug = registry.backends().get(name)
        if plug is None or not plug.version():
            continue
        verdicts = {plug.capabilities().support(node).verdict for node in facts}
        ranked[name] = 2 if Verdict.NO in verdicts else 1 if Verdict.UNKNOWN in verdicts else 0
    return sorted(ranked, key=lambda name: ranked[name])
