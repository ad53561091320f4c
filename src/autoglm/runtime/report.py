"""What `check` says, as data: the plan with its reasons and prices, and what was done first."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from autoglm.messages import tr
from autoglm.spec import Alternative, Fit, Plan, TensorInfo

if TYPE_CHECKING:
    from autoglm.config import AdaptConfig
    from autoglm.plan.graph import Graph
    from autoglm.rewrite.legalize import Rewrite
    from autoglm.rewrite.prepare import PassResult
    from autoglm.runtime.prepare import Loaded, Planned


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` says: the plan with its reasons and prices, and what was done to the model
    first.
    """

    model: str
    source: str  # where it was read from; "" for an object
    frontend: str
    digest: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    plan: Plan
    graph: Graph
    passes: tuple[PassResult, ...]
    rewrites: tuple[Rewrite, ...]
    notes: tuple[str, ...]
    toolkits: dict[str, str]
    config: AdaptConfig

    @property
    def fit(self) -> Fit:
        """fits, fits with fallbacks, does not fit."""
        return self.plan.fit

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        from autoglm.plan.explain import to_dict

        nodes = self.graph.nodes
        return {
            "model": self.model,
            "source": self.source,
            "frontend": self.frontend,
            "digest": self.digest,
            "fit": self.fit.value,
            "inputs": [asdict(i) for i in self.inputs],
            "outputs": [asdict(o) for o in self.outputs],
            "nodes": len(nodes),
            "flops": sum(n.flops for n in nodes),
            "plan": to_dict(self.plan),
            "passes": [asdict(p) for p in self.passes],
            "rewrites": [asdict(r) for r in self.rewrites],
            "notes": list(self.notes),
            "toolkits": self.toolkits,
            "config": self.config.model_dump(mode="json", exclude_unset=True),
        }


def make_report(
    loaded: Loaded, planned: Planned, config: AdaptConfig, others: tuple[Alternative, ...]
) -> Report:
    """The report of one plan; `others` are plans of engines that were not asked for by name."""
    plan = replace(planned.plan, alternatives=(*planned.plan.alternatives, *others))
    return Report(
        model=loaded.name,
        source=loaded.source,
        frontend=loaded.frontend,
        digest=loaded.digest,
        inputs=loaded.inputs,
        outputs=loaded.outputs,
        plan=plan,
        graph=planned.graph,
        passes=loaded.passes,
        rewrites=planned.rewrites,
        notes=(*loaded.notes, *planned.graph.notes, *plan.notes, *_idle(planned, config)),
        toolkits={name: table.toolkit for name, table in planned.tables.items()},
        config=config,
    )


def _idle(planned: Planned, config: AdaptConfig) -> tuple[str, ...]:
    """Patterns of the config that match nothing: most often a misspelt name."""
    ops = {n.op for n in planned.graph.nodes}
    names = ops | {n.name for n in planned.graph.nodes}
    pins = [p for p in config.pins if not any(fnmatchcase(name, p) for name in names)]
    forbidden = [p for p in config.budget.forbid if not any(fnmatchcase(op, p) for op in ops)]
    return (
        *(tr("The pin {pattern!r} matches no node and no operator.", pattern=p) for p in pins),
        *(tr("budget.forbid {pattern!r} matches no operator.", pattern=p) for p in forbidden),
    )
