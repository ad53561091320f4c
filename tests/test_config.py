"""The config refuses what it should, by name and all at once, whatever format it came in."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.config import (
    AdaptConfig,
    Problems,
    Settings,
    json_schema,
    load_config,
    merge,
    validate,
)
from autoglm.errors import ConfigError, FileMissingError

SPEC = {"backend": "sophon", "precision": "int8", "fallback_policy": "cpu", "memory_alignment": 64}
REPOSITORY = Path(__file__).parents[1]


def problems(values: dict[str, Any]) -> Problems:
    with pytest.raises(ConfigError) as caught:
        validate(values)
    found = caught.value.facts["problems"]
    assert isinstance(found, Problems)
    return found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps(SPEC)),
        (
            "a.yaml",
            "backend: sophon\nprecision: int8\nfallback_policy: cpu\nmemory_alignment: 64\n",
        ),
        ("a.toml", "\n".join(f"{key} = {json.dumps(value)}" for key, value in SPEC.items())),
        ("bom.json", "\ufeff" + json.dumps(SPEC)),
    ],
)
def test_the_specified_example_is_valid_in_every_format(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, "utf-8")

    config = load_config(tmp_path / name)

    assert config.model_dump(exclude_unset=True) == SPEC


@pytest.mark.parametrize(
    ("values", "key", "allowed"),
    [
        ({"memory_alignment": 63}, "memory_alignment", "nearest is 64"),
        ({"memory_alignment": 0}, "memory_alignment", "nearest is 1"),
        ({"memory_alignment": 1 << 22}, "memory_alignment", "nearest is 2097152"),
        ({"memory_alignment": "64"}, "memory_alignment", "whole number"),
        ({"precision": "int9"}, "precision", "fp32, fp16, bf16, int8, int8-dynamic, auto"),
        ({"fallback_policy": "gpu"}, "fallback_policy", "cpu, error, or a list of backends"),
        ({"fallback_policy": ["cpu", "-x"]}, "fallback_policy.1", "does not begin with '-'"),
        ({"backend": "--output=/etc"}, "backend", "does not begin with '-'"),
        ({"backend": ""}, "backend", "not empty"),
        ({"arch": "a\nb"}, "arch", "control characters"),
        ({"pins": {"conv*": "-rm"}}, "pins.conv*", "does not begin with '-'"),
        ({"pins": {"-c": "cpu"}}, "pins.-c", "does not begin with '-'"),
        ({"settings": {"k": "-o"}}, "settings.k", "does not begin with '-'"),
        ({"max_error": float("nan")}, "max_error", "finite"),
        ({"max_error": 0.0}, "max_error", "> 0"),
        ({"threads": True}, "threads", "whole number"),
        ({"input_shapes": {"x": [1, "a"]}}, "input_shapes.x.1", "whole number"),
        ({"input_shapes": {"x": [-1]}}, "input_shapes.x.0", ">= 0"),
        ({"budget": {"max_partitions": 0}}, "budget.max_partitions", ">= 1"),
        ({"budget": 5}, "budget", "a table"),
        ({"passes": {"fold": "yes"}}, "passes.fold", "true or false"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    values: dict[str, Any], key: str, allowed: str
) -> None:
    (problem,) = problems(values)

    assert problem.key == key
    assert problem.found
    assert allowed in str(problem)


def test_everything_wrong_is_said_at_once() -> None:
    found = problems({"bakend": "x", "precision": "int9", "memory_alignment": 63, "device": "-1"})

    assert {p.key for p in found} == {"bakend", "precision", "memory_alignment", "device"}


def test_an_unknown_key_gets_a_suggestion_also_inside_a_table() -> None:
    top, inner = sorted(problems({"bakend": 1, "budget": {"max_partition": 1}}), key=str)

    assert str(top) == "bakend: unknown key; did you mean backend?"
    assert str(inner) == "budget.max_partition: unknown key; did you mean budget.max_partitions?"


def test_an_unknown_key_unlike_any_lists_what_there_is() -> None:
    (problem,) = problems({"zzzzzz": 1})

    assert "memory_alignment" in str(problem)


@given(st.integers(min_value=-(2**70), max_value=2**70))
def test_only_powers_of_two_up_to_two_mebibytes_align(value: int) -> None:
    good = value in {1 << k for k in range(22)}

    if good:
        assert validate({"memory_alignment": value}).memory_alignment == value
    else:
        assert problems({"memory_alignment": value})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*AdaptConfig.model_fields, "zz"]), json_values))
def test_any_values_give_a_config_or_one_config_error(values: dict[str, Any]) -> None:
    with suppress(ConfigError):
        config = validate(values)
        assert validate(config.model_dump()) == config


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", '{"backend": "a", "backend": "b"}', "'backend' is given twice"),
        ("a.json", '{"budget": {"forbid": [], "forbid": []}}', "'forbid' is given twice"),
        ("a.json", '{"max_error": NaN}', "NaN"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", '{"pins":' * 20 + "{}" + "}" * 20, "nested too deeply"),
        ("a.json", '{"threads": ' + "9" * 5000 + "}", "a.json"),
        ("a.json", "[1]", "expected a table"),
        ("a.json", "<html>", "a.json"),
        ("a.json", "", "a.json"),
        ("a.yaml", "backend: a\nbackend: b\n", "'backend' is given twice"),
        ("a.yaml", "backend: !!python/object/apply:os.system ['true']\n", "tag"),
        ("a.yaml", "backend: !!str a\n", "tag"),
        ("a.yaml", "a: &a [x]\nb: [" + "*a," * 17 + "]\n", "aliases"),
        ("a.yaml", "[" * 50_000, "nested too deeply"),
        ("a.yaml", "a: &a [*a]\n", "a.yaml"),
        ("a.yaml", "a: 'b\n", "not YAML"),
        ("a.yaml", "1: 2\n", "keys are texts"),
        ("a.toml", 'backend = "a"\nbackend = "b"\n', "a.toml"),
        ("a.toml", "a = " + "[" * 5000, "a.toml"),
        ("a.ini", "", "ends in .json"),
        ("a.json", " " * (1 << 19), "larger than"),
    ],
)
def test_a_hostile_or_broken_file_is_one_config_error(
    tmp_path: Path, name: str, text: str, reason: str
) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")

    with pytest.raises(ConfigError) as caught:
        load_config(path)

    assert reason in str(caught.value)


def test_bytes_that_are_no_text_and_folders_and_absent_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe{}")
    (tmp_path / "b.json").mkdir()

    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "a.json")
    with pytest.raises(ConfigError, match=r"b\.json"):
        load_config(tmp_path / "b.json")
    with pytest.raises(FileMissingError, match=r"c\.json"):
        load_config(tmp_path / "c.json")


@given(st.binary(max_size=200), st.sampled_from([".json", ".yaml", ".toml"]))
def test_no_bytes_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"a{suffix}"
    path.write_bytes(data)

    with suppress(ConfigError):
        assert load_config(path)


def test_merge_keeps_what_is_not_overridden_and_joins_tables() -> None:
    config = validate({"backend": "a", "pins": {"x": "cpu"}, "budget": {"forbid": ["MatMul"]}})

    merged = merge(config, threads=None, pins={"y": "npu"}, budget={"max_partitions": 3})

    assert merged.backend == "a"
    assert merged.pins == {"x": "cpu", "y": "npu"}
    assert merged.budget.forbid == ("MatMul",)
    assert merged.budget.max_partitions == 3
    assert config.pins == {"x": "cpu"}


def test_merge_refuses_what_the_config_refuses() -> None:
    with pytest.raises(ConfigError, match="memory_alignment"):
        merge(None, memory_alignment=63)


def test_engine_settings_are_text_whatever_they_were_and_may_be_negative_numbers() -> None:
    config = validate({"settings": {"a": 1, "b": True, "c": -2, "d": "x"}})

    assert config.settings == {"a": "1", "b": "true", "c": "-2", "d": "x"}
    assert validate(config.model_dump()) == config


def test_the_published_schema_is_the_models() -> None:
    published = json.loads((REPOSITORY / "docs/config.schema.json").read_text("utf-8"))

    assert published == json_schema()


@pytest.mark.parametrize("values", [SPEC, {"memory_alignment": 63}, {"bakend": "x"}, {"pins": []}])
def test_the_schema_and_the_model_agree(values: dict[str, Any]) -> None:
    import jsonschema

    valid = not list(jsonschema.Draft202012Validator(json_schema()).iter_errors(values))

    try:
        validate(values)
    except ConfigError:
        assert not valid
    else:
        assert valid


def test_settings_come_from_the_environment_given() -> None:
    settings = Settings.read({"XDG_CACHE_HOME": "/x", "AUTOGLM_LANG": "zh_CN", "NO_COLOR": "1"})

    assert settings.cache_dir == Path("/x/autoglm")
    assert (settings.language, settings.debug, settings.no_color) == ("zh", False, True)
    assert Settings.read({"AUTOGLM_CACHE_DIR": "/y", "XDG_CACHE_HOME": "/x"}).cache_dir == Path(
        "/y"
    )
    assert Settings.read({"HOME": "/h", "AUTOGLM_DEBUG": "0"}).cache_dir == Path(
        "/h/.cache/autoglm"
    )
