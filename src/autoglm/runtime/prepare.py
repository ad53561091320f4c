"""From a source and a config to a prepared model and a plan: everything that `check` needs, and
nothing that runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm import registry
from autoglm.bundle.manifest import is_bundle
from autoglm.errors import BackendUnavailableError, ModelError
from autoglm.messages import tr
from autoglm.spec import (
    Capabilities,
    Constraint,
    Evidence,
    NodeFacts,
    Plan,
    Support,
    TensorInfo,
    Value,
    no,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from autoglm.config import AdaptConfig
    from autoglm.plan.cost import Machine
    from autoglm.plan.graph import Graph
    from autoglm.rewrite.legalize import Rewrite
    from autoglm.rewrite.prepare import PassResult


# The share of a node's time that must be gained before it leaves the backend that was named.
_LOYALTY = 0.5
# No engines: the one computes nothing, the other stands in for a chip that is not here.
_ONLY_BY_NAME = ("null", "emulated")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model as every backend gets it, and what was done to it on the way."""

    model: ir.Model
    name: str
    source: str  # where it was read from; "" for an object
    frontend: str
    digest: str
    passes: tuple[PassResult, ...]
    notes: tuple[str, ...]

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What the model takes; weights are not inputs."""
        from autoglm.rewrite.save import input_infos

        return input_infos(self.model)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What the model returns."""
        from autoglm.rewrite.save import output_infos

        return output_infos(self.model)


@dataclass(frozen=True, slots=True)
class Planned:
    """One backend's plan, and the model as decomposed for it."""

    model: ir.Model
    graph: Graph
    plan: Plan
    rewrites: tuple[Rewrite, ...]
    tables: Mapping[str, Capabilities]


def load(
    source: object, config: AdaptConfig, *, example_inputs: Sequence[Value] | None = None
) -> Loaded:
    """Read `source` with the frontend that knows it and run the shared passes."""
    from autoglm.rewrite.facts import model_digest
    from autoglm.rewrite.prepare import prepare
    from autoglm.rewrite.shapes import bind_shapes

    if isinstance(source, str | Path) and is_bundle(source):
        raise ModelError(
            "{path} is a bundle; this takes a model.",
            hint="`autoglm inspect` shows a bundle's plan, `autoglm run` runs it.",
            path=str(source),
        )
    plug = registry.frontend_for(source)
    model = plug.load(source, example_inputs=example_inputs)
    if config.input_shapes:
        model = bind_shapes(model, config.input_shapes)
    before = _transposes(model)
    model, passes = prepare(model, passes=config.passes)
    notes = [model.metadata_props.get(f"autoglm.{key}_note", "") for key in ("frontend", "opset")]
    if notes[0] and before:  # of other frameworks, whose layouts are not ONNX's
        notes.append(
            tr(
                "Of {before} transposes in the converted model, {after} stay.",
                before=before,
                after=_transposes(model),
            )
        )
    return Loaded(
        model=model,
        name=_name(source, model),
        source=str(Path(source).absolute()) if isinstance(source, str | Path) else "",
        frontend=plug.name,
        digest=model_digest(model),
        passes=tuple(passes),
        notes=tuple(filter(None, notes)),
    )


def _transposes(model: ir.Model) -> int:
    return sum(node.op_type == "Transpose" for graph in model.graphs() for node in graph)


def plan_for(
    loaded: Loaded,
    backend: str,
    config: AdaptConfig,
    machine: Machine,
    *,
    precision: str = "",
    refused: Mapping[str, Mapping[str, str]] | None = None,
) -> Planned:
    """Decompose what `backend` lacks, then place every node; pure but for reading capability packs.

    `refused` maps backend -> node -> the reason its compiler gave: what was tried outweighs the
    table.
    """
    from autoglm.plan import graph_of
    from autoglm.rewrite.legalize import legalize

    tables = tables_for(backend, config)
    for name, nodes in (refused or {}).items():
        tables[name] = Refusing(**table_fields(tables[name]), nodes=nodes)
    model = loaded.model.clone()
    rewrites = legalize(model, tables[backend].at(precision or config.precision).support)
    graph = graph_of(model)
    plan = place(graph, tables, backend, config, machine, precision=precision)
    return Planned(model, graph, plan, tuple(rewrites), tables)


def place(
    graph: Graph,
    tables: Mapping[str, Capabilities],
    backend: str,
    config: AdaptConfig,
    machine: Machine,
    *,
    precision: str = "",
    pins: Mapping[str, str] | None = None,
) -> Plan:
    """Place every node of a graph as the config wants it; `pins` give way to the config's."""
    from autoglm.plan import Budget, make_plan

    return make_plan(
        graph,
        tables,
        backend=backend,
        policy=config.fallback_policy,
        precision=precision or config.precision,
        machine=machine,
        pins={**config.pins, **(pins or {})},
        budget=Budget(**_budget(config)),
        # Who names a backend wants it used: predictions are too coarse to leave it for little.
        prefer_primary=0.0 if config.backend == "auto" else _LOYALTY,
        device=config.device,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusing(Capabilities):
    """A table, less the nodes that its compiler has just refused."""

    nodes: Mapping[str, str]

    def support(self, node: NodeFacts) -> Support:
        """The compiler's own refusal where there is one, the table's word otherwise."""
        reason = self.nodes.get(node.name)
        if reason is not None:
            text = tr("its compiler refused it: {reason}", reason=reason)
            return no(Constraint.OP, text, Evidence.MEASURED)
        return Capabilities.support(self, node)


def tables_for(backend: str, config: AdaptConfig) -> dict[str, Capabilities]:
    """The primary's table, then those of the backends that the policy lets it fall back to."""
    policy = config.fallback_policy
    from autoglm.plan import CPU_ENGINES

    names = [backend]
    if policy == "cpu":
        names += _present(CPU_ENGINES)
    elif policy != "error":
        names += list(policy)
    names += config.pins.values()
    arch = {backend: config.arch}
    return {
        name: registry.backend(name).capabilities(arch.get(name, ""))
        for name in dict.fromkeys(names)
    }


def installed() -> list[str]:
    """The engines that `auto` tries, in the order of trust: toolkit and device are both here.

    A simulator is no device: it is used by name only, as `null` and emulated chips are.
    """
    from autoglm.plan import CPU_ENGINES

    others = [n for n in registry.backends() if n not in CPU_ENGINES and n not in _ONLY_BY_NAME]
    return _present((*CPU_ENGINES, *filter(_has_device, _present(others))))


def _has_device(name: str) -> bool:
    devices = registry.backend(name).probe()
    return any(d.present and "simulator" not in d.facts for d in devices)


def _present(names: Sequence[str]) -> list[str]:
    known = registry.backends()
    return [n for n in names if n in known and known[n].version()]


def require_installed(names: Sequence[str]) -> None:
    """BackendUnavailableError for the first of `names` whose toolkit is not here."""
    for name in names:
        if not registry.backend(name).version():
            raise BackendUnavailableError(
                "Backend {name} is known, but its toolkit is not installed here.",
                hint="pip install 'open-autoglm[{name}]', or plan for it with `autoglm check`.",
                name=name,
            )


def _budget(config: AdaptConfig) -> dict[str, Any]:
    budget = config.budget.model_dump()
    return {**budget, "forbid": tuple(budget.get("forbid") or ())}


def _name(source: object, model: ir.Model) -> str:
    if isinstance(source, str | Path):
        return Path(source).stem or Path(source).resolve().name
    return model.graph.name or "model"


def table_fields(table: Capabilities) -> dict[str, Any]:
    """What `table` is made of, for a table that answers otherwise."""
    return {f.name: getattr(table, f.name) for f in fields(Capabilities)}
