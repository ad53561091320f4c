"""Every config key is an option of check, compile and run, and means the same there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autoglm.cli.app import app, invoke
from autoglm.cli.options import OPTIONS
from autoglm.config import AdaptConfig, Budget
from autoglm.keys import KEYS

GIVEN: dict[str, tuple[list[str], Any]] = {
    "backend": (["--backend", "sophon"], "sophon"),
    "precision": (["-p", "int8"], "int8"),
    "fallback_policy": (["--fallback-policy", "openvino,torch"], ["openvino", "torch"]),
    "arch": (["--arch", "bm1684x"], "bm1684x"),
    "device": (["--device", "1"], "1"),
    "memory_alignment": (["--memory-alignment", "4096"], 4096),
    "max_error": (["--max-error", "2e-2"], 0.02),
    "accept_accuracy": (["--accept-accuracy"], True),
    "calibration": (["--calibration", "data/"], "data/"),
    "inputs": (["--inputs", "in.npz"], "in.npz"),
    "input_shapes": (["--shape", "x=1,3,8,8", "--shape", "s="], {"x": [1, 3, 8, 8], "s": []}),
    "pins": (["--pin", "layer.0/*=cpu"], {"layer.0/*": "cpu"}),
    "budget.max_fallback_time_pct": (["--max-fallback-time-pct", "5"], 5.0),
    "budget.max_partitions": (["--max-partitions", "3"], 3),
    "budget.forbid": (["--forbid", "MatMul,Conv", "--forbid", "Erf"], ["MatMul", "Conv", "Erf"]),
    "passes": (["--pass", "fold=off", "--pass", "dead=on"], {"fold": False, "dead": True}),
    "threads": (["--threads", "2"], 2),
    "timeout_s": (["--timeout-s", "1.5"], 1.5),
    "memory_limit_bytes": (["--memory-limit-bytes", "1000000"], 1000000),
    "optimize": (["--no-optimize"], False),
    "settings": (["--setting", "a=b=c", "--setting", "n=-1"], {"a": "b=c", "n": "-1"}),
}


def keys() -> set[str]:
    fields = set(AdaptConfig.model_fields) - {"budget"}
    return fields | {f"budget.{name}" for name in Budget.model_fields}


def shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert invoke(["config", "show", *words]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_options_and_descriptions_are_the_configs_keys() -> None:
    assert {option.key for option in OPTIONS} == keys() == set(GIVEN)
    assert set(KEYS) == keys() | {"budget"}


@pytest.mark.parametrize("command", ["check", "compile", "run"])
def test_each_command_takes_every_key_under_its_own_name(command: str) -> None:
    import typer.main

    group: Any = typer.main.get_command(app)
    flags = {flag for p in group.commands[command].params for flag in (*p.opts, *p.secondary_opts)}

    wanted = {"--" + key.rpartition(".")[2].replace("_", "-") for key in keys()}
    assert wanted <= flags


@pytest.mark.parametrize("key", sorted(GIVEN))
def test_an_option_says_what_the_key_says(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, value = GIVEN[key]

    config = shown(words, capsys)

    table, _, name = key.rpartition(".")
    assert (config[table] if table else config)[name] == value


def test_options_override_the_file_and_tables_are_joined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        'backend = "npu"\nthreads = 1\n[pins]\na = "cpu"\n[budget]\nmax_partitions = 2\n'
    )

    config = shown(["-c", str(path), "--threads", "4", "--pin", "b=npu", "--forbid", "Erf"], capsys)

    assert (config["backend"], config["threads"]) == ("npu", 4)
    assert config["pins"] == {"a": "cpu", "b": "npu"}
    assert config["budget"] == {
        "max_fallback_time_pct": None,
        "max_partitions": 2,
        "forbid": ["Erf"],
    }


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--shape", "x=1,a"], "input_shapes.x.1"),
        (["--shape", "novalue"], "input_shapes"),
        (["--pass", "fold=maybe"], "passes.fold"),
        (["--max-error", "little"], "max_error"),
        (["--fallback-policy", "a,-b"], "fallback_policy.1"),
        (["--backend", "--output"], "backend"),
    ],
)
def test_what_does_not_parse_is_refused_by_its_key(
    words: list[str], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["config", "show", *words]) == 78
    assert f" {key}" in capsys.readouterr().err


def test_validate_says_yes_or_everything_that_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('{"backend": "sophon"}')
    bad.write_text('{"bakend": 1, "memory_alignment": 63}')

    assert invoke(["config", "validate", str(good)]) == 0
    assert "valid" in capsys.readouterr().out
    assert invoke(["config", "validate", str(bad)]) == 78
    printed = capsys.readouterr().err
    assert "did you mean backend?" in printed
    assert "nearest is 64" in printed
