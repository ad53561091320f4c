"""`check` of a language model: verdicts, reasons, remedies, several chips, JSON and exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llm.published import PUBLISHED
from llm.test_speed import ZEN4

import autoglm
from autoglm.api import check_language_model
from autoglm.cli.app import invoke
from autoglm.errors import AutoGLMError, BackendNotFoundError, ConfigError, ModelError
from autoglm.llm import target
from autoglm.llm.check import LanguageReport, checkpoint_bytes
from autoglm.spec import Fit

GLM = "THUDM/glm-4-9b-chat"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is the one that was measured once: a test must not time anything."""
    monkeypatch.setattr("autoglm.runtime.machine.machine", lambda: ZEN4)
    monkeypatch.setattr(target, "memory_here", lambda: 8 * 2**30)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def made(name: str, **changes: Any) -> Path:
        folder = tmp_path / name.rpartition("/")[2]
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({**PUBLISHED[name].config, **changes}))
        return folder

    return made


def check(folder: Path, **options: Any) -> LanguageReport:
    return check_language_model(folder, **options)


def test_a_model_that_fits_says_how_much_more_would(write: Any) -> None:
    found = check(write(GLM), backend="ascend", arch="Ascend910B", context=32768, concurrency=16)

    (plan,) = found.targets
    assert (found.fit, plan.reason, plan.remedies) == (Fit.FITS, "", ())
    assert plan.chosen.storage.name == "bf16"
    assert plan.chosen.single.seconds
    assert plan.chosen.concurrency > 16
    assert plan.chosen.context > 32768
    assert found.cache_token_bytes == 40960


def test_too_many_sequences_fit_with_limits_and_the_way_out_is_named(write: Any) -> None:
    folder = write("meta-llama/Llama-3.1-8B")
    options: dict[str, Any] = {"arch": "L4", "context": 8192, "precision": "bf16"}
    most = check(folder, **options).targets[0].chosen.concurrency

    found = check(folder, concurrency=most + 1, **options)

    (plan,) = found.targets
    assert found.fit is Fit.FALLBACKS
    assert f"{most} of {most + 1} sequences fit" in plan.reason
    assert {f"--concurrency {most}", "--devices 2", "--precision int8"} <= set(plan.remedies)


def test_auto_takes_fewer_bits_where_the_checkpoint_does_not_fit(write: Any) -> None:
    found = check(write("Qwen/Qwen2.5-7B-Instruct"), arch="RTX 3080", context=4096)

    (plan,) = found.targets
    assert found.fit is Fit.FALLBACKS
    assert plan.chosen.storage.name in ("int8", "int4")
    assert "bf16 does not fit: the weights take 14.2 GiB" in plan.reason


def test_what_fits_nowhere_names_the_devices_that_it_needs(write: Any) -> None:
    found = check(write("deepseek-ai/DeepSeek-V3"), arch="H100", context=8192)

    (plan,) = found.targets
    assert found.fit is Fit.NO
    assert "the weights take" in plan.reason
    fp8 = next(row for row in plan.rows if row.storage.name == "fp8")
    assert 10 <= fp8.devices <= 16  # 671 GB of 72 GiB usable each
    assert any(text.startswith("--devices ") for text in plan.remedies)


def test_the_named_number_of_devices_is_enough_and_one_fewer_is_not(write: Any) -> None:
    folder = write("zai-org/GLM-4.5-Air")
    options: dict[str, Any] = {"arch": "H100", "context": 32768, "precision": "bf16"}
    count = check(folder, **options).targets[0].chosen.devices

    assert check(folder, devices=count, **options).fit is Fit.FITS
    assert check(folder, devices=count - 1, **options).fit is not Fit.FITS


def test_more_tokens_than_the_model_has_positions_never_fit(write: Any) -> None:
    found = check(write(GLM), arch="H100", context=200_000)

    assert found.fit is Fit.NO
    assert found.targets[0].reason == "the model takes 131072 tokens, asked are 200000"
    assert found.targets[0].remedies == ("--context 131072",)


def test_fewer_sequences_do_not_help_where_the_context_is_not_the_model_s(write: Any) -> None:
    options: dict[str, Any] = {"context": 200_000, "concurrency": 8, "precision": "bf16"}
    (plan,) = check(write(GLM), arch="H100", **options).targets

    assert plan.fit is Fit.NO
    assert 0 < plan.chosen.concurrency < 8
    assert [text.split()[0] for text in plan.remedies] == ["--context"]


@pytest.mark.parametrize(
    ("options", "fit"),
    [
        ({"arch": "BM1684", "context": 32768, "concurrency": 64}, Fit.NO),
        ({"arch": "V100", "precision": "bf16", "devices": 2}, Fit.FALLBACKS),
    ],
)
def test_no_count_is_named_where_memory_is_not_what_is_short(
    options: dict[str, Any], fit: Fit, write: Any
) -> None:
    (plan,) = check(write("Qwen/Qwen3-0.6B"), **options).targets

    assert plan.fit is fit
    assert not any(text.split()[0] in ("--devices", "--concurrency") for text in plan.remedies)


def test_a_chip_whose_memory_no_source_gives_is_never_a_plain_yes(write: Any) -> None:
    found = check(write(GLM), arch="Ascend910B1")

    assert found.fit is Fit.FALLBACKS
    assert "no source gives the memory of Ascend 910B1" in found.targets[0].reason


def test_a_chip_without_16_bit_arithmetic_is_refused_with_its_precisions(write: Any) -> None:
    found = check(write("Qwen/Qwen3-0.6B"), arch="BM1684")

    assert found.fit is Fit.NO
    assert "BM1684 has no bf16" in found.targets[0].reason


@pytest.mark.parametrize("name", ["GTX 1070 Ti", "EPYC 7763", "Xeon 8380"])
def test_a_chip_published_with_fp32_alone_is_planned_in_fp32_and_not_refused(
    name: str, write: Any
) -> None:
    (plan,) = check(write("Qwen/Qwen3-0.6B"), arch=name).targets

    assert [row.storage.name for row in plan.rows] == ["fp32", "int8", "int4"]
    assert all(row.fit is not Fit.NO for row in plan.rows)


def test_a_precision_that_no_document_mentions_is_unknown_and_not_a_no(write: Any) -> None:
    found = check(write("Qwen/Qwen3-0.6B"), arch="GTX 1070 Ti", precision="bf16")

    assert found.fit is Fit.FALLBACKS
    assert "no document says whether it computes in bf16" in found.targets[0].reason


def test_a_chip_without_bf16_is_planned_in_fp16(write: Any) -> None:
    found = check(write("Qwen/Qwen3-0.6B"), arch="Ascend 310P3")

    assert found.targets[0].chosen.storage.name == "fp16"


def test_without_a_chip_this_machine_is_planned_at_its_measured_speeds(write: Any) -> None:
    found = check(write("Qwen/Qwen2.5-0.5B-Instruct"), precision="int4", context=512)

    (plan,) = found.targets
    assert (plan.target.name, plan.target.chip) == ("here", None)
    assert plan.chosen.basis == ("measured: 2 vCPU of an AMD Zen 4",)
    assert plan.chosen.single.seconds


def test_chips_stand_side_by_side_and_the_worst_verdict_counts(write: Any) -> None:
    found = check(write(GLM), to=["ascend:Ascend910B", "T4", "cuda", "here"], context=8192)

    names = [plan.target.name for plan in found.targets]
    assert names == ["Ascend 910B", "T4", "A100 80GB SXM", "here"]
    order = [Fit.NO, Fit.FALLBACKS, Fit.FITS]
    assert found.fit is min((p.fit for p in found.targets), key=order.index)


def test_splits_are_priced_and_those_that_cannot_be_say_why(write: Any) -> None:
    found = check(write("THUDM/GLM-4-32B-0414"), arch="A100", context=8192, devices=6)

    splits = {str(s.layout): s for s in found.targets[0].chosen.splits}
    assert list(splits) == ["6×1", "3×2", "2×3", "1×6"]
    assert splits["6×1"].obstacle == ""
    two = splits["2×3"]
    assert two.need is not None
    assert two.decode is not None
    assert two.decode.links_s > splits["1×6"].decode.links_s  # type: ignore[union-attr]


@pytest.mark.parametrize(("devices", "why"), [(3, "do not divide"), (1000, "do not fill")])
def test_devices_that_cannot_share_the_model_are_refused_in_words(
    devices: int, why: str, write: Any
) -> None:
    found = check(write("google/gemma-2-2b", num_hidden_layers=2), arch="H100", devices=devices)

    (plan,) = found.targets
    assert found.fit is Fit.NO
    assert why in plan.reason or any(why in s.obstacle for s in plan.chosen.splits)
    assert "--devices 1" in plan.remedies


def test_a_quantised_checkpoint_is_planned_as_it_is_stored(write: Any) -> None:
    awq = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}

    found = check(write("Qwen/Qwen2.5-7B-Instruct", quantization_config=awq), arch="T4")

    assert found.stored == "awq int4 g128"
    assert found.targets[0].chosen.storage.name == "awq int4 g128"
    assert found.fit is Fit.FITS


def test_autoglm_check_goes_the_same_way_for_a_folder_of_a_language_model(write: Any) -> None:
    folder = write(GLM)

    found = autoglm.check(folder, arch="H100", context=4096, precision="int4")

    assert isinstance(found, LanguageReport)
    assert found.to_dict() == check(folder, arch="H100", context=4096, precision="int4").to_dict()


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"context": 0}, ConfigError, "context must be a whole number from 1"),
        ({"concurrency": -1}, ConfigError, "concurrency must be a whole number from 1"),
        ({"devices": 100_000}, ConfigError, "devices must be a whole number from 1 to 1024"),
        ({"precision": "int5"}, ConfigError, "Precision int5 is not planned"),
        ({"arch": "Ascend9"}, ConfigError, "Unknown chip"),
        ({"to": ["nosuch"]}, ConfigError, "Unknown chip"),
        ({"backend": "torch", "arch": "H1OO"}, ConfigError, "Unknown chip"),
        ({"backend": "onnxruntime", "arch": "H1OO"}, ConfigError, "Unknown chip"),
        ({"backend": "openvino", "arch": "H1OO"}, ConfigError, "Unknown chip"),
        ({"backend": "reference", "arch": "H1OO"}, ConfigError, "Unknown chip"),
        ({"backend": "nosuch"}, BackendNotFoundError, "Unknown backend"),
        ({"backend": "ascend", "arch": "H100"}, ConfigError, "driven by the backend cuda"),
        ({"pins": {"a": "b"}}, ConfigError, "pins would have no effect"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    options: dict[str, Any], kind: type[AutoGLMError], text: str, write: Any
) -> None:
    with pytest.raises(kind, match=text):
        check(write(GLM), **options)


def test_options_of_language_models_on_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        autoglm.check(tmp_path / "model.onnx", context=4096)


@pytest.mark.parametrize("option", ["--context", "--concurrency", "--devices"])
def test_the_command_refuses_them_on_something_else_even_if_they_are_zero(
    option: str, tmp_path: Path, capsys: Capture
) -> None:
    assert invoke(["check", str(tmp_path / "model.onnx"), option, "0"]) != 0

    assert "has no config.json" in capsys.readouterr().err


def test_example_inputs_are_refused_for_a_language_model(write: Any) -> None:
    with pytest.raises(ConfigError, match="example_inputs would have no effect"):
        autoglm.check(write(GLM), arch="H100", example_inputs=[])


def test_a_family_that_is_not_planned_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')

    with pytest.raises(ModelError, match="model_type is 'gpt2'; planned: chatglm"):
        autoglm.check(tmp_path, context=4096)


def test_the_index_of_the_checkpoint_is_compared_with_the_plan(write: Any) -> None:
    folder = write(GLM)
    index = folder / "model.safetensors.index.json"

    index.write_text('{"metadata": {"total_size": 18799902784}, "weight_map": {}}')
    assert "the checkpoint holds 18.80 GB, planned 18.80 GB" in check(folder, arch="H100").notes
    index.write_text('{"metadata": {"total_size": 9000000000}, "weight_map": {}}')
    assert any("one of them is not this model's" in n for n in check(folder, arch="H100").notes)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"metadata": {}}', '{"metadata": null}'),
        "[" * 200_000,
        '{"metadata": {"total_size": -1}}',
        '{"metadata": {"total_size": 1' + "0" * 400 + "}}",
        '{"metadata": {"total_size": 1}}' + " " * (16 << 20),
    ],
    ids=["empty", "cut", "list", "none", "null", "nested", "negative", "huge", "long"],
)
def test_a_damaged_index_is_no_obstacle(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)

    assert checkpoint_bytes(tmp_path) is None


def test_bytes_of_the_only_file_are_counted_without_its_header(tmp_path: Path) -> None:
    header = b'{"a":{}}'
    body = len(header).to_bytes(8, "little") + header + bytes(100)
    (tmp_path / "model.safetensors").write_bytes(body)

    assert checkpoint_bytes(tmp_path) == 100


def test_a_header_longer_than_its_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{}")

    assert checkpoint_bytes(tmp_path) is None


def test_the_command_prints_a_table_and_exits_by_the_verdict(write: Any, capsys: Capture) -> None:
    words = ["check", str(write(GLM)), "--backend", "ascend", "--arch", "Ascend910B"]

    assert invoke([*words, "--context", "32768", "--concurrency", "16"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("fits")
    for text in ("9.40 B parameters in bf16", "40 KiB of cache per token", "bf16", "int8", "int4"):
        assert text in out
    assert "no source gives its memory bandwidth" not in out


def test_tokens_per_second_stay_unknown_without_a_bandwidth(write: Any, capsys: Capture) -> None:
    assert invoke(["check", str(write(GLM)), "--arch", "Ascend910B3"]) == 0

    assert "no source gives its memory bandwidth" in capsys.readouterr().out


def test_the_command_says_what_would_fit(write: Any, capsys: Capture) -> None:
    words = ["check", str(write("zai-org/GLM-4.5-Air")), "--arch", "H100", "--precision", "bf16"]

    assert invoke(words) == 2
    out = capsys.readouterr().out
    assert out.startswith("does not fit")
    assert "what would fit: --devices" in out


def test_the_command_compares_chips_and_shows_splits(write: Any, capsys: Capture) -> None:
    words = ["check", str(write("THUDM/GLM-4-32B-0414")), "--to", "H100,A100", "--devices", "2"]

    assert invoke(words) == 0
    out = capsys.readouterr().out
    for text in ("Side by side", "H100 SXM", "A100 80GB SXM", "Splits", "2×1", "1×2"):
        assert text in out


def test_json_holds_every_row(write: Any, capsys: Capture) -> None:
    words = ["check", str(write(GLM) / "config.json"), "--to", "H100,Ascend910B3", "--json"]

    assert invoke(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 9_399_951_360
    rows = found["targets"][0]["rows"]
    assert [r["precision"] for r in rows] == ["bf16", "int8", "int4"]
    assert found["targets"][1]["rows"][0]["tokens_per_s"] is None


def test_it_speaks_chinese_too(
    write: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM_LANG", "zh")

    invoke(["check", str(write(GLM)), "--arch", "T4", "--context", "200000"])

    assert capsys.readouterr().out.startswith("不适配")


def test_a_report_page_is_refused_in_words(write: Any, capsys: Capture, tmp_path: Path) -> None:
    words = ["check", str(write(GLM)), "--arch", "H100", "--report", str(tmp_path / "a.html")]

    assert invoke(words) == 64
    assert "no page for language models" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "name", "backend"),
    [
        ({"backend": "onnxruntime"}, "here", "onnxruntime"),
        ({"backend": "ascend"}, "Ascend 910", "ascend"),
        ({"backend": "torch", "arch": "H100"}, "H100 SXM", "cuda"),
        ({"backend": "openvino", "arch": "EPYC 9654"}, "EPYC 9654", "openvino"),
        ({"arch": "910b"}, "Ascend 910B", "ascend"),
    ],
)
def test_backend_and_arch_name_one_target(
    options: dict[str, Any], name: str, backend: str, write: Any
) -> None:
    (plan,) = check(write("Qwen/Qwen3-0.6B"), **options).targets

    assert (plan.target.name, plan.target.backend) == (name, backend)


def test_this_machine_is_one_device_however_many_are_asked_for(write: Any) -> None:
    found = check(write("zai-org/GLM-4.5-Air"), devices=4, context=512)

    (plan,) = found.targets
    assert found.fit is Fit.NO
    assert [str(s.layout) for s in plan.chosen.splits] == ["1×1"]
    assert not any(text.startswith("--devices") for text in plan.remedies)
    assert "this machine is planned as one device, asked are 4" in found.notes
    assert "this machine is planned" not in str(
        check(write(GLM), arch="H100", devices=4).to_dict()["notes"]
    )


def test_memory_here_is_the_container_s_where_it_has_a_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(target, "_CGROUP", limit)

    whole = target.memory_here()
    limit.write_text("1048576\n")

    assert whole > 2**28
    assert target.memory_here() == 1048576
