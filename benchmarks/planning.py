"""How long planning takes, and how good the plans are: beside greedy, and beside the true optimum.

    python benchmarks/planning.py [--seeds 5] [--sizes 500,2000,8000]

Graphs and capability masks are drawn by lot: each backend but the last refuses a tenth of the nodes
(a third in the small graphs), so islands are many and small, which is the hard case.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from statistics import geometric_mean as mean

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from plan.graphs import MACHINE, best_by_force, chain, problem_of, random_dag, random_tables, table

from autoglm.plan import make_plan
from autoglm.spec import Plan

NAMES = ("a", "b", "c", "d")


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", default="500,2000,8000")
    options = parser.parse_args()
    sizes = [int(s) for s in options.sizes.split(",")]
    print("Planning time (CPU seconds of this process, best of the seeds)")
    times(sizes, options.seeds)
    print(
        "\nChosen plan beside greedy and the best single engine (predicted time, lower is better)"
    )
    quality(sizes, options.seeds)
    print("\nChosen plan beside the optimum by brute force")
    optimum(60 * options.seeds)


def planned(size: int, names: Sequence[str], seed: int, reach: int = 4) -> tuple[Plan, float]:
    """A plan of a random graph, and the CPU seconds it took."""
    graph = random_dag(size, seed, reach=reach, loose=False)
    tables = random_tables(graph, seed, names, refuse=0.1)
    start = time.process_time()
    plan = make_plan(graph, tables, backend=names[0], policy=names[1:], machine=MACHINE)
    return plan, time.process_time() - start


def times(sizes: Sequence[int], seeds: int) -> None:
    """Seconds by size, and per 1,000 nodes."""
    rows = {
        "all on the primary": lambda size, seed: supported(size, seed),
        "one refusal in a chain": lambda size, seed: split_chain(size),
        "2 backends, random": lambda size, seed: planned(size, NAMES[:2], seed)[1],
        "3 backends, random": lambda size, seed: planned(size, NAMES[:3], seed)[1],
        "4 backends, random, wide": lambda size, seed: planned(size, NAMES, seed, reach=30)[1],
    }
    print(
        f"{'':26}" + "".join(f"{size:>10} nodes" for size in sizes) + "   seconds per 1,000 nodes"
    )
    for name, measure in rows.items():
        best = [min(measure(size, seed) for seed in range(seeds)) for size in sizes]
        each = "  ".join(f"{1000 * t / size:.3f}" for t, size in zip(best, sizes, strict=True))
        print(f"{name:26}" + "".join(f"{t:>16.3f}" for t in best) + f"   {each}")


def supported(size: int, seed: int) -> float:
    """Seconds where nothing has to be decided."""
    graph = random_dag(size, seed)
    tables = {name: table(name, *{n.op for n in graph.nodes}) for name in NAMES[:3]}
    start = time.process_time()
    make_plan(graph, tables, backend="a", policy=["b", "c"], machine=MACHINE)
    return time.process_time() - start


def split_chain(size: int) -> float:
    """Seconds where one node in the middle of a long chain is refused."""
    ops = ["MatMul"] * size
    ops[size // 2] = "Erf"
    tables = {"a": table("a", "MatMul", speed=3.0), "b": table("b", "MatMul", "Erf")}
    graph = chain(*ops, size=10_000)
    start = time.process_time()
    make_plan(graph, tables, backend="a", policy=["b"], machine=MACHINE)
    return time.process_time() - start


def quality(sizes: Sequence[int], seeds: int) -> None:
    """Greedy's and the best single engine's time over the chosen plan's."""
    for names in (NAMES[:2], NAMES[:3]):
        for size in sizes:
            plans = [planned(size, names, seed)[0] for seed in range(seeds)]
            greedy = [p.alternatives[0].seconds / p.seconds for p in plans]
            single = [
                min(a.seconds for a in p.alternatives if a.name.startswith("all on")) / p.seconds
                for p in plans
            ]
            parts = fmean(len(p.partitions) for p in plans)
            before = fmean(p.alternatives[0].partitions for p in plans)
            print(
                f"{len(names)} backends, {size:>5} nodes: greedy {mean(greedy):.3f}x"
                f" (worst {max(greedy):.3f}x), single engine {mean(single):.3f}x,"
                f" partitions {before:.0f} -> {parts:.0f}"
            )


def optimum(cases: int) -> None:
    """How often and how closely small plans reach the optimum over all convex placements."""
    for names, size in ((NAMES[:2], 7), (NAMES[:2], 9), (NAMES[:3], 6)):
        ratios: list[float] = []
        greedy: list[float] = []
        for seed in range(cases):
            graph = random_dag(size, seed, largest=(60_000, 6_000, 600_000)[seed % 3])
            tables = random_tables(graph, seed, names, refuse=(0.2, 0.4)[seed % 2])
            plan = make_plan(graph, tables, backend=names[0], policy=names[1:], machine=MACHINE)
            if any(r.backend == names[0] for r in plan.refusals):
                best = best_by_force(problem_of(graph, tables)) / 1e12
                ratios.append(plan.seconds / best)
                greedy.append(plan.alternatives[0].seconds / best)
        hits = sum(r < 1 + 1e-9 for r in ratios) / len(ratios)
        print(
            f"{len(names)} backends, {size} nodes, {len(ratios)} cases: optimum in {hits:.1%}, "
            f"worst {max(ratios):.3f}x, mean {mean(ratios):.4f}x; "
            f"greedy mean {mean(greedy):.3f}x"
        )


if __name__ == "__main__":
    main()
