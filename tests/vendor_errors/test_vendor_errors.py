"""Every known message: real text in, the right explanation out, in both languages."""

from __future__ import annotations

import re
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.messages import set_language
from autoglm.vendor_errors import SYSTEM, Entry, entries, explain

ALL = pytest.mark.parametrize("entry", entries(), ids=lambda e: e.code)
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


@ALL
def test_the_sample_is_explained_by_its_own_entry_first(entry: Entry) -> None:
    found = explain(entry.sample)

    assert found[0].code == entry.code
    assert explain(entry.sample, entry.vendor)[0].code == entry.code


@ALL
def test_named_groups_are_filled_from_the_sample(entry: Entry) -> None:
    first = explain(entry.sample)[0]
    groups = set(re.compile(entry.match).groupindex)

    assert all(fields(text) <= groups for texts in entry.texts.values() for text in texts)
    assert "?" not in first.cause + first.next


@ALL
def test_both_languages_say_the_same_facts(entry: Entry) -> None:
    for english, chinese in zip(entry.texts["en"], entry.texts["zh"], strict=True):
        assert fields(english) == fields(chinese)
        assert english
    assert CHINESE.search(entry.texts["zh"][0])


@ALL
def test_the_source_and_a_key_are_named(entry: Entry) -> None:
    assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", entry.source) or len(entry.source) > 15
    assert any(key in entry.sample for key in entry.keys)


def test_there_are_many_entries_with_codes_of_their_own_for_every_vendor() -> None:
    codes = [entry.code for entry in entries()]

    assert len(codes) == len(set(codes)) >= 60
    vendors = {"ascend", "cambricon", "cuda", "kunlun", "sophon", SYSTEM}
    assert {entry.vendor for entry in entries()} == vendors


def test_most_samples_are_what_somebody_reported() -> None:
    reported = [e for e in entries() if re.search(r"^[\w.-]+/[\w.-]+#\d+|^https?://", e.source)]
    tables = [e for e in entries() if e not in reported]

    assert len(reported) >= 100
    assert all(re.match("CANN|Cambricon|Huawei|run:", e.source) for e in tables)


# Other wordings of one message, as the threads print them.
REPORTED = {
    "vllm-project/vllm-ascend#811": (
        "EZ3002: [PID: 141730] 2025-05-14-07:42:33.234.136 Optype [TransData] of Ops kernel "
        "[AIcoreEngine] is unsupported. Reason: [tbe-custom]:op type TransData is not found in "
        "this op store.",
        "ascend-op-refused",
    ),
    "yinghuo302/ascend-llm#7": (
        "E19010:No parser is registered for op [/model/layers.0/self_attn/q_proj/MatMulInteger,"
        "optype [ai.onnx::13::MatMulInteger1]].",
        "ascend-no-parser",
    ),
    "hiyouga/LlamaFactory#7986": (
        "E40021: [PID: 2000] 2025-07-17-11:24:31.572.955 Failed to compile Op "
        "[Conv3D1_to_Conv3dv2,[Conv3D1,Conv3D1]]. (oppath: [Compile /usr/local/Ascend/ascend",
        "ascend-op-compile",
    ),
    "modelscope/FunASR#2676": ("[ACL ERROR] E19999: Inner Error!", "ascend-inner-error"),
    "Ascend/samples#16": (
        "[ERROR]  acl set device 0 failed, errorCode = 507033",
        "ascend-open-device",
    ),
    "Ascend/samples#21": (
        "aclrtSetDevice: open device 0 failed, runtime result = 507033",
        "ascend-open-device",
    ),
    "PaddlePaddle/Paddle#72458": (
        "EE1001: 2025-04-11-10:12:09.580.593 The argument is invalid.Reason: rtGetDevMsg execute "
        "failed, reason=[context pointer null]",
        "ascend-invalid-argument",
    ),
    "opendatalab/MinerU#4075": (
        "NPU function error: call aclnnCast failed, error code is 561103",
        "ascend-kernel-not-found",
    ),
    "vllm-project/vllm-ascend#2387": (
        "NPU function error: call aclnnAddRmsNormQuant failed, error code is 561000",
        "ascend-tiling",
    ),
    "Ascend/pytorch#54": (
        "EI9999: 2024-10-21-10:42:00.358.410  The error from device(chipId:3, dieId:0), serial "
        "number is 9, hccl fftsplus task timeout occurred during task execution, stream_id:5",
        "hccl-notify-timeout",
    ),
    "NVIDIA/nccl#1283": (
        "n176-080-198:2657296:2658232 [0] include/alloc.h:102 NCCL WARN Cuda failure 1 'invalid "
        "argument'",
        "nccl-cuda-memory",
    ),
    "sophgo/sophon-demo#65": (
        "[ERR] /workspace/nntoolchain/TPU1686/firmware_core/src/global_layer/nodechip_attention.c"
        ':269: calc_nc_split: Assertion "0" failed.',
        "sophon-attention-assert",
    ),
}


@pytest.mark.parametrize("source", REPORTED)
def test_other_wordings_that_were_reported_are_known_too(source: str) -> None:
    text, code = REPORTED[source]

    assert code in {found.code for found in explain(text)}


def test_all_nodes_that_atc_names_are_reported_once_each() -> None:
    log = """ATC run failed, Please check the detail log, Try 'atc --help' for more information
E19010: No parser is registered for Op [/tome1/FindMax, optype [ai.onnx::11::FindMax]].
      Solution: Check the version of the installation package and reinstall the package.
      TraceBack (most recent call last):
      No parser is registered for Op [/tome1/TomeMerged, optype [ai.onnx::11::TomeMerged]].
      No parser is registered for Op [/tome1/FindMax, optype [ai.onnx::11::FindMax]]."""

    (first,) = explain(log, "ascend")

    assert first.nodes == ("/tome1/FindMax", "/tome1/TomeMerged")
    assert first.line == 2


def test_a_catch_all_is_said_only_where_nothing_exact_is() -> None:
    assert [e.code for e in explain("EZ9999: Inner Error!")] == ["ascend-inner-error"]
    both = "EZ9999: Inner Error!\nerror code is 507018"
    assert [e.code for e in explain(both)] == ["ascend-aicpu-exception"]


def test_chinese_is_spoken_where_it_is_in_force() -> None:
    set_language("zh")

    assert "opset 11" in explain("error: 'onnx.Unsqueeze' op requires a single operand")[0].cause
    assert CHINESE.search(explain("CNRT error: invalid argument")[0].next)


def test_colours_of_a_terminal_do_not_hide_a_message() -> None:
    assert explain("\x1b[31mCUDA out of \x1b[0mmemory. Tried to allocate 2.00 MiB.")


def test_another_vendors_messages_are_left_out_but_not_the_systems() -> None:
    log = "MLU out of memory. Tried to allocate 1.00 GiB\nIllegal instruction"

    assert [e.code for e in explain(log, "ascend")] == ["illegal-instruction"]


@given(st.text())
def test_any_text_is_read_without_an_exception(text: str) -> None:
    explain(text)


@given(st.lists(st.sampled_from([k for e in entries() for k in e.keys]), max_size=40), st.text())
def test_torn_messages_are_read_without_an_exception(keys: list[str], glue: str) -> None:
    for found in explain(glue.join(keys)):
        assert found.cause
        assert found.next


@pytest.mark.parametrize(
    "line", ["x" * 99, "of operator is not found E10001 507018 undefined symbol: UNREACHABLE"]
)
def test_a_long_log_takes_time_in_proportion_to_its_length(line: str) -> None:
    # 10 MB; quadratic reading would take hours, so the bound can be far off any real figure.
    log = (line + "\n") * (10_000_000 // (len(line) + 1))
    started = time.process_time()

    explain(log)

    assert time.process_time() - started < 60
