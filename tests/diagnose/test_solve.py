"""Machines as people reported them: what does not fit, and the nearest set that does."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.diagnose.doctor import examine
from autoglm.diagnose.rules import components, rules
from autoglm.diagnose.solve import conflicts, solve
from autoglm.messages import set_language

# (where the machine was described, its versions)
FITTING = {
    "flashserve/flash-linear-attention-npu#149": {
        "python": "3.11",
        "cann": "8.5.2",
        "torch": "2.9.0",
        "torch_npu": "2.9.0.post4",
    },
    "Ascend/pytorch#99": {
        "python": "3.11",
        "cann": "8.3.RC1",
        "torch": "2.7.1",
        "torch_npu": "2.7.1",
    },
    "vllm-ascend v0.11.0, its release matrix": {
        "python": "3.11.13",
        "cann": "8.3.RC2",
        "nnal": "8.3.RC2",
        "torch": "2.7.1+cpu",
        "torch_npu": "2.7.1.post1",
        "vllm": "0.11.0",
        "vllm-ascend": "0.11.0",
        "ascend-driver": "25.2.0",
    },
    "after bmaltais/kohya_ss#1096, with a driver of that time": {
        "torch": "2.0.1+cu118",
        "cuda": "11.8.89",
        "cudnn": "8.7.0.84",
        "nvidia-driver": "525.105.17",
    },
}
# where -> (versions, the pair that does not fit, changes expected)
ONE_PAIR = {
    "microsoft/onnxruntime#21684": (
        {"cuda": "12.1.105", "cudnn": "8.9.2", "onnxruntime-gpu": "1.16.0"}
        | {"nvidia-driver": "535.104.05", "glibc": "2.31"},
        ("onnxruntime-gpu", "cuda"),
        {"cuda": "11.8"},
    ),
    "hiyouga/LlamaFactory#7986": (
        {"cann": "8.0.RC3", "torch": "2.5.1", "torch_npu": "2.5.1", "python": "3.10"},
        ("torch_npu", "cann"),
        {"cann": "8.0.0"},
    ),
    "PaddlePaddle/Paddle#73315": (
        {"kunlun-chip": "R200", "paddlepaddle-xpu": "3.0.0.dev20240612", "python": "3.10"},
        ("kunlun-chip", "paddlepaddle-xpu"),
        {"paddlepaddle-xpu": "0.0.0"},
    ),
    "made up: a TensorRT wheel for another CUDA": (
        {"tensorrt-cu12": "10.8.0", "cuda": "11.8", "nvidia-driver": "535.54.03"},
        ("tensorrt-cu12", "cuda"),
        {"cuda": "12.4"},
    ),
    "after sgl-project/sglang#28628": (
        {"cann": "8.5.0", "torch": "2.7.1", "torch_npu": "2.8.0", "python": "3.11"},
        ("torch_npu", "torch"),
        {"torch": "2.8.0"},
    ),
}


@pytest.mark.parametrize("where", FITTING)
def test_a_machine_that_works_is_left_alone(where: str) -> None:
    diagnosis = examine(FITTING[where])

    assert diagnosis.consistent, diagnosis.sentences()
    assert diagnosis.solution is None
    assert diagnosis.checked > 0


@pytest.mark.parametrize("where", ONE_PAIR)
def test_one_wrong_pair_is_named_and_mended_by_one_change(where: str) -> None:
    facts, pair, expected = ONE_PAIR[where]
    diagnosis = examine(facts)

    assert [[(next(iter(r.when)), r.component) for r in c] for c in diagnosis.broken] == [[pair]]
    assert diagnosis.solution is not None
    assert {c.component: c.after for c in diagnosis.solution.changes} == expected
    assert all(c.command for c in diagnosis.solution.changes)


def test_a_chain_of_three_is_shown_as_one_and_mended_with_the_fewest_changes() -> None:
    facts = {"python": "3.10", "torch": "2.7.1", "torch_npu": "2.7.1", "cann": "8.0.RC2"}
    diagnosis = examine({**facts, "ascend-driver": "23.0.3"})

    (chain,) = diagnosis.broken
    assert [r.component for r in chain] == ["cann", "ascend-driver"]
    assert diagnosis.solution is not None
    changes = {c.component: c.after for c in diagnosis.solution.changes}
    assert changes == {"cann": "8.3.RC1", "ascend-driver": "24.1.0"}


def test_a_mend_that_breaks_another_pair_is_carried_through() -> None:
    facts = {"torch": "2.3.1", "cuda": "12.1", "cudnn": "8.9.2", "nvidia-driver": "535.104.05"}
    diagnosis = examine({**facts, "onnxruntime-gpu": "1.20.1"})

    assert diagnosis.solution is not None
    changes = {c.component: c.after for c in diagnosis.solution.changes}
    assert set(changes) == {"cudnn", "torch"}


def test_two_separate_conflicts_are_two_chains() -> None:
    diagnosis = examine(
        {"torch": "2.5.1", "torch_npu": "2.7.1", "cann": "8.3.RC1"}
        | {"tpu_mlir": "1.30.2", "python": "3.11"}
    )

    assert len(diagnosis.broken) == 2


def test_a_toolkit_that_is_missing_is_a_conflict() -> None:
    diagnosis = examine({"torch": "2.7.1", "torch_npu": "2.7.1", "python": "3.10"})

    ((sentence, *_),) = diagnosis.sentences()
    assert "needs CANN toolkit" in sentence
    assert "which is not here" in sentence
    assert diagnosis.solution is not None
    (change,) = diagnosis.solution.changes
    assert (change.component, change.before) == ("cann", "")


def test_two_onnxruntimes_cannot_share_an_environment() -> None:
    facts = {"onnxruntime": "1.20.1", "onnxruntime-gpu": "1.20.1", "nvidia-driver": "550.54"}
    diagnosis = examine({**facts, "cuda": "12.4", "cudnn": "9.1.0"})

    assert diagnosis.solution is not None
    assert [(c.component, c.after) for c in diagnosis.solution.changes] == [("onnxruntime", "")]


def test_tpu_mlir_beside_autoglm_gets_an_environment_of_its_own() -> None:
    diagnosis = examine({"open-autoglm": "0.1.0", "python": "3.11.7", "tpu_mlir": "1.30.2"})

    assert diagnosis.solution is not None
    (change,) = diagnosis.solution.changes
    assert "autoglm toolchain install sophon" in change.command


def test_what_no_known_version_mends_is_said_to_be_so() -> None:
    facts = {"open-autoglm": "0.1.0", "python": "3.11.4", "kunlun-chip": "P800"}
    diagnosis = examine({**facts, "paddlepaddle-xpu": "3.0.0"})

    assert not diagnosis.consistent
    assert diagnosis.solution is None
    assert diagnosis.to_dict()["solvable"] is False


def test_a_long_chain_is_solved_in_a_moment() -> None:
    facts = {"vllm-ascend": "0.11.0", "vllm": "0.11.0", "torch": "2.8.0", "torch_npu": "2.7.1"}
    facts |= {"cann": "8.2.RC1", "nnal": "8.2.RC1", "python": "3.12", "ascend-driver": "24.1.RC1"}
    started = time.process_time()
    diagnosis = examine(facts)

    assert time.process_time() - started < 20  # a fraction of a second on an idle machine
    assert diagnosis.solution is not None
    changed = {c.component: c.after for c in diagnosis.solution.changes}
    assert changed == {
        "ascend-driver": "24.1.0",
        "cann": "8.3.RC2",
        "nnal": "8.3.RC1",
        "python": "3.11",
        "torch": "2.7.1",
    }


def test_sentences_are_spoken_in_chinese() -> None:
    set_language("zh")
    diagnosis = examine({"torch": "2.5.1", "torch_npu": "2.7.1", "cann": "8.3.RC1"})

    assert "需要" in diagnosis.sentences()[0][0]


VERSIONS = {name: [*row.versions, "0.0.1", "99"] for name, row in components().items()}


@given(
    st.dictionaries(st.sampled_from(sorted(VERSIONS)), st.integers(0, 99), max_size=5).map(
        lambda d: {n: VERSIONS[n][i % len(VERSIONS[n])] for n, i in d.items()}
    )
)
def test_a_solution_breaks_no_rule(facts: dict[str, str]) -> None:
    solution = solve(facts, rules(), components())

    if solution is not None:
        after = {**facts, **{c.component: c.after for c in solution.changes}}
        assert conflicts({n: v for n, v in after.items() if v}, rules()) == ()


def test_every_rule_speaks_of_known_components_and_names_its_source() -> None:
    for rule in rules():
        assert set(rule.components) <= set(components())
        assert len(rule.source) > 10


def test_what_can_be_changed_says_how() -> None:
    for row in components().values():
        assert bool(row.cost) == bool(row.change or row.remove)
        assert bool(row.versions) == bool(row.change)
