"""CUDA-only code is found by what it means, whatever it was imported as."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.cli.app import invoke
from autoglm.diagnose.audit import RISKS, audit, audit_text, rules, targets
from autoglm.errors import FileMissingError
from autoglm.messages import set_language

SCRIPT = '''\
"""Runs on cuda, ask nvidia-smi."""
import os
import torch as th
from torch import cuda
from flash_attn import flash_attn_func

os.environ["CUDA_VISIBLE_DEVICES"] = "0"
x = th.ones(3).cuda()
th.cuda.empty_cache()
cuda.synchronize()
th.distributed.init_process_group(backend="nccl")
y = x.to(f"cuda:{rank}")
model = load("x", device_map="cuda")
'''


def kinds(source: str) -> list[tuple[int, str]]:
    return [(f.line, f.kind) for f in audit_text(source)]


def test_every_place_of_a_script_is_found_once() -> None:
    assert kinds(SCRIPT) == [
        (4, "torch.cuda"),
        (5, "CUDA kernels by package"),
        (7, "visible devices"),
        (8, "tensor.cuda()"),
        (9, "torch.cuda memory"),
        (10, "torch.cuda"),
        (11, "nccl"),
        (12, "device string"),
        (13, "device string"),
    ]


def test_the_replacement_keeps_what_is_called() -> None:
    found = {f.line: f.instead for f in audit_text(SCRIPT)}

    assert found[9]["ascend"] == "torch.npu.empty_cache"
    assert found[10]["cambricon"] == "torch.mlu.synchronize"
    assert found[11] == {
        "ascend": "'hccl'",
        "cambricon": "'cncl'",
        "kunlun": "stays, after torch_xmlir",
    }
    assert found[7]["kunlun"] == "'XPU_VISIBLE_DEVICES'"


@pytest.mark.parametrize(
    "source",
    [
        "x = 'the cuda toolkit'",
        "def f():\n    'nccl'\n",
        "import torch\nx = torch.ones(3).to(device)",
        "from . import cuda\ncuda.synchronize()",
        "cuda = 3\nprint(cuda.real)",
        "name = 'npu'",
    ],
)
def test_what_is_not_cuda_is_left_alone(source: str) -> None:
    assert kinds(source) == []


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("import torch\ntorch.cuda.CUDAGraph()", "CUDA graph or stream capture"),
        ("import torch\ntorch.cuda.get_device_capability()[0] >= 8", "compute capability"),
        ("import torch.backends.cudnn as c\nc.benchmark = True", "cuDNN, cuBLAS switch"),
        ("p = ['CUDAExecutionProvider']", "ONNX Runtime provider"),
        ("run('nvidia-smi -q')", "nvidia-smi"),
        ("import triton.language as tl", "own CUDA kernels"),
        ("env['NCCL_DEBUG'] = 'INFO'", "CUDA or NCCL variable"),
        ("if x.is_cuda: pass", "tensor.is_cuda"),
        ("import torch\nwith torch.cuda.amp.autocast(): pass", "torch.cuda.amp"),
    ],
)
def test_each_kind_is_known(source: str, kind: str) -> None:
    assert kind in [k for _, k in kinds(source)]


def test_every_rule_is_complete() -> None:
    for rule in rules():
        assert rule.portable
        assert rule.zh
        assert rule.risk in RISKS
        assert set(rule.instead) <= set(targets())
        assert rule.names or rule.methods or rule.attributes or rule.strings
    assert all(facts["source"] for facts in targets().values())


def test_a_folder_is_read_whole_and_what_is_no_python_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x.cuda()")
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "latin.py").write_bytes(b"x = '\xff'")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/b.py").write_text("x.cuda()")
    (tmp_path / "c.txt").write_text("x.cuda()")

    found = audit(tmp_path)

    assert (found.files, found.risk) == (3, "low")
    assert [Path(f.path).name for f in found.findings] == ["a.py"]
    assert {Path(p).name for p in found.unread} == {"broken.py", "latin.py"}
    with pytest.raises(FileMissingError, match="There is no"):
        audit(tmp_path / "gone")


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_as_syntax(text: str) -> None:
    try:
        audit_text(text)
    except (SyntaxError, ValueError):
        return


def test_the_command_counts_by_kind_and_ends_with_the_risk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)

    assert invoke(["audit", str(path), "--target", "ascend"]) == 2
    shown = capsys.readouterr().out
    assert "9 CUDA-only places of 7 kinds in 1 files" in shown
    assert "torch.npu.empty_cache" in shown
    assert invoke(["audit", str(path), "--json"]) == 2
    facts = json.loads(capsys.readouterr().out)
    assert facts["counts"]["device string"] == 2
    path.write_text("x.cuda()")
    assert invoke(["audit", str(path)]) == 1
    path.write_text("x = 1")
    assert invoke(["audit", str(path)]) == 0
    assert invoke(["audit", str(path), "--target", "abacus"]) == 78
    assert invoke(["audit", str(tmp_path / "gone")]) == 66
    capsys.readouterr()


def test_advice_is_chinese_when_asked_for() -> None:
    set_language("zh")

    assert "配置" in audit_text("d = 'cuda'")[0].portable
