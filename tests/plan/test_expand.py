"""For two backends an expansion is the optimum of what it prices; for more, never a loss."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from plan.graphs import problem_of, random_dag, random_tables

from autoglm.plan.expand import expand, expand_all, relaxed_cost


@settings(max_examples=120)
@given(st.integers(0, 10_000), st.integers(2, 8), st.sampled_from([0.2, 1.0]))
def test_two_backends_without_convexity_are_solved_exactly(
    seed: int, size: int, share: float
) -> None:
    graph = random_dag(size, seed, reach=size)
    problem = problem_of(graph, random_tables(graph, seed, ("a", "b")))
    start = [options[0] for options in problem.options]

    found = expand_all(problem, start, share=share)

    every = product(*problem.options)
    assert relaxed_cost(problem, found, share=share) == min(
        relaxed_cost(problem, labels, share=share) for labels in every
    )


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_three_backends_never_get_dearer_and_keep_to_what_is_allowed(seed: int, size: int) -> None:
    graph = random_dag(size, seed, reach=size)
    problem = problem_of(graph, random_tables(graph, seed, ("a", "b", "c")))
    start = [options[0] for options in problem.options]

    found = expand_all(problem, start)

    assert relaxed_cost(problem, found) <= relaxed_cost(problem, start)
    assert all(label in options for label, options in zip(found, problem.options, strict=True))


def test_one_expansion_is_the_best_of_all_its_moves() -> None:
    for seed in range(40):
        graph = random_dag(7, seed)
        problem = problem_of(graph, random_tables(graph, seed, ("a", "b")))
        start = [options[0] for options in problem.options]

        found = expand(problem, start, 1)

        moves = product(
            *({s, 1} if 1 in o else {s} for s, o in zip(start, problem.options, strict=True))
        )
        assert relaxed_cost(problem, found) == min(relaxed_cost(problem, m) for m in moves)
