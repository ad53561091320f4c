"""Place every node where the whole plan is cheapest, and keep the plans that were not chosen.

Guaranteed: every plan named here (greedy, all on one engine, the cut's) is priced by the same
function, and the chosen one costs no more than any of them; except that a primary which takes
every node keeps every node, because it was asked for. Not guaranteed: the optimum, once partitions
must be split to be convex (`benchmarks/planning.py` measures how far it is off).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autoglm.plan.budget import Budget, over_budget
from autoglm.plan.cost import Machine, machines_of
from autoglm.plan.expand import choices, expand_all
from autoglm.plan.graph import Graph
from autoglm.plan.improve import improve
from autoglm.plan.options import candidates, choose_options, triers_of
from autoglm.plan.partition import Solution, solve_order
from autoglm.plan.problem import PICO, UNPLACED, Problem, make_problem, sides
from autoglm.plan.result import Setting, build_plan, true_cost
from autoglm.spec import Alternative, Capabilities, Plan

# Session calls in the cut are charged per tensor, which is too much where partitions share them.
_SHARES = (1.0, 0.25)
# Up to this many nodes, plans that do without one of the backends are also tried.
_THIN = 500


def make_plan(
    graph: Graph,
    tables: Mapping[str, Capabilities],
    *,
    backend: str,
    policy: str | Sequence[str] = "cpu",
    precision: str = "fp32",
    machine: Machine | None = None,
    pins: Mapping[str, str] | None = None,
    budget: Budget | None = None,
    allow_reference: bool = False,
    prefer_primary: float = 0.0,
    device: str = "",
) -> Plan:
    """Decide which backend runs each node; pure, and the same answer every time.

    `policy`: "cpu" (the CPU engines in `tables`), "error" (no fallback), or backends in order;
    the reference evaluator only where that list names it or `allow_reference` is set, and only for
    nodes that nothing else takes. A node that nobody is known to take goes to a CPU engine to be
    tried, under "error" to none. `pins`: node name or operator pattern -> backend; the first that
    matches counts. `prefer_primary`: a node that the primary takes leaves it only for a gain above
    this share of its time. `device`: the primary's, which is given nothing to try on a chip. A plan
    over budget is chosen only where every plan is over budget.
    """
    machine, budget = machine or Machine(), budget or Budget()
    names = candidates(backend, policy, tables, allow_reference=allow_reference)
    options = choose_options(
        graph,
        tables,
        names,
        precision=precision,
        pins=pins or {},
        forbid=budget.forbid,
        triers=triers_of(backend, device, policy),
    )
    used = [tables[name] for name in options.backends]
    problem = make_problem(graph, options, used, machine, prefer_primary=prefer_primary)
    machines = machines_of(used, options.precisions, machine)
    setting = Setting(graph, options, problem, sides(options, used), precision, machines)
    return _choose(setting, _solutions(problem), budget)


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    solution: Solution


def _solutions(problem: Problem) -> list[_Named]:
    """Greedy first, then each engine alone, then what the cut finds, then that improved."""
    greedy = [allowed[0] if allowed else UNPLACED for allowed in problem.options]
    found = [_Named("greedy", solve_order(problem, greedy))]
    for label, name in enumerate(problem.backends):
        if all(label in allowed for allowed in problem.options) and problem.size:
            found.append(_Named(f"all on {name}", solve_order(problem, [label] * problem.size)))
    if _decided(problem):
        return found
    cuts = _cuts(problem, greedy)
    found.append(_Named("cut", min(cuts, key=lambda s: s.cost)))
    starts = [*(f.solution for f in found), *cuts]
    return [*found, _Named("improved", improve(problem, starts))]


def _cuts(problem: Problem, greedy: list[int]) -> list[Solution]:
    found: list[Solution] = []
    for share in _SHARES:
        start = found[-1].labels if found else greedy
        found.append(solve_order(problem, expand_all(problem, start, share=share)))
    labels = choices(problem)
    if len(labels) > 2 and problem.size <= _THIN:
        for label in labels:
            thin = [
                next((b for b in allowed if b != label), allowed[0]) if allowed else UNPLACED
                for allowed in problem.options
            ]
            found.append(solve_order(problem, expand_all(problem, thin, without=label)))
    return found


def _decided(problem: Problem) -> bool:
    """Whether nothing is left to weigh: no node has a choice, or the primary takes them all."""
    return all(len(o) < 2 for o in problem.options) or all(
        o[:1] in ((0,), ()) for o in problem.options
    )


def _choose(setting: Setting, found: Sequence[_Named], budget: Budget) -> Plan:
    """The cheapest within budget; where none is, the cheapest, with what it breaks."""
    problem = setting.problem
    greedy = found[0].solution
    pool = [greedy] if _decided(problem) else [f.solution for f in found]
    ranked = sorted(dict.fromkeys(pool), key=lambda s: s.cost)
    plans = []
    for solution in ranked:
        plan = build_plan(setting, solution, greedy=greedy, violations=setting.options.violations)
        broken = over_budget(plan, budget)
        plans.append(replace(plan, violations=(*plan.violations, *broken)))
        if not broken:
            break
    chosen = plans[0] if over_budget(plans[-1], budget) else plans[-1]
    return replace(chosen, alternatives=_alternatives(problem, found))


def _alternatives(problem: Problem, found: Sequence[_Named]) -> tuple[Alternative, ...]:
    return tuple(
        Alternative(
            f.name,
            sum(g.label != UNPLACED for g in f.solution.groups),
            true_cost(problem, f.solution) / PICO,
        )
        for f in found
        if f.name != "improved"
    )
