"""The verbs from end to end on a tiny model, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from autoglm.cli.app import invoke
from autoglm.errors import TABLE

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """x [batch, 4] -> MatMul, Add, Relu -> y [batch, 3]."""
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="mm"),
        helper.make_node("Add", ["m", "b"], ["a"], name="add"),
        helper.make_node("Relu", ["a"], ["y"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [
            onnx.numpy_helper.from_array(weights, "w"),
            onnx.numpy_helper.from_array(np.float32([-1, 0, 1]), "b"),
        ],
    )
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return str(path)


@pytest.fixture(scope="module")
def bundle(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bundle") / "out"
    assert invoke(["compile", model, "--backend", "onnxruntime", "-o", str(folder)]) == 0
    return str(folder)


def parsed(words: list[str], capsys: Capture, status: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert invoke([*words, "--json"]) == status
    return dict(json.loads(capsys.readouterr().out))


def test_check_says_it_fits(model: str, capsys: Capture) -> None:
    facts = parsed(["check", model, "--backend", "onnxruntime"], capsys)

    assert facts["fit"] == "fits"
    assert facts["config"] == {"backend": "onnxruntime"}


def test_check_needs_no_toolkit_and_ends_with_the_verdicts_status(
    model: str, tmp_path: Path, capsys: Capture
) -> None:
    page = tmp_path / "report.html"

    status = invoke(
        ["check", model, "--backend", "null", "--forbid", "MatMul", "--report", str(page)]
    )

    assert status in (0, 1, 2)
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert capsys.readouterr().out


def test_check_that_does_not_fit_ends_with_2(model: str, capsys: Capture) -> None:
    words = ["check", model, "--backend", "onnxruntime", "--pin", "relu=null"]
    facts = parsed([*words, "--max-partitions", "1"], capsys, status=2)

    assert facts["fit"] == "does not fit"
    assert facts["plan"]["violations"] or facts["plan"]["unplaced"]


def test_an_unknown_backend_lists_what_there_is(model: str, capsys: Capture) -> None:
    error = parsed(["check", model, "--backend", "nonesuch"], capsys, status=69)["error"]

    assert error["code"] == "backend-not-found"
    assert "onnxruntime" in error["message"]


def test_compile_reports_certificates(model: str, tmp_path: Path, capsys: Capture) -> None:
    words = ["compile", model, "--backend", "onnxruntime", "-o", str(tmp_path / "out")]
    facts = parsed([*words, "--report", str(tmp_path / "r.html")], capsys)

    assert all(c["passed"] for c in facts["certificates"])
    assert (tmp_path / "out" / "bundle.json").is_file()
    assert "Certificates" in (tmp_path / "r.html").read_text("utf-8")


def test_run_gives_what_numpy_gives(bundle: str, model: str, tmp_path: Path) -> None:
    x = np.float32([[1, 2, 3, 4], [0, -1, 0, 1]])
    np.savez(tmp_path / "in.npz", x=x)
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
    expected = np.maximum(x @ weights + np.float32([-1, 0, 1]), 0)

    for source in (bundle, model):
        out = str(tmp_path / "out.npz")
        assert invoke(["run", source, "--inputs", str(tmp_path / "in.npz"), "-o", out]) == 0
        np.testing.assert_allclose(np.load(out)["y"], expected, rtol=1e-5)


def test_run_takes_one_array_and_json(bundle: str, tmp_path: Path, capsys: Capture) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 4), np.float32))
    (tmp_path / "in.json").write_text('{"x": [[1, 1, 1, 1]]}')

    first = parsed(["run", bundle, "--inputs", str(tmp_path / "x.npy")], capsys)
    second = parsed(["run", bundle, "--inputs", str(tmp_path / "in.json")], capsys)

    assert first["outputs"] == second["outputs"]
    assert first["outputs"]["y"]["shape"] == [1, 3]


def test_random_inputs_are_the_same_for_the_same_seed(bundle: str, capsys: Capture) -> None:
    words = ["run", bundle, "--random", "--dim", "batch=2"]

    first = parsed([*words, "--seed", "1"], capsys)
    again = parsed([*words, "--seed", "1"], capsys)
    other = parsed([*words, "--seed", "2"], capsys)

    assert first == again != other
    assert first["outputs"]["y"]["shape"] == [2, 3]


def test_run_without_inputs_says_what_the_model_takes(bundle: str, capsys: Capture) -> None:
    error = parsed(["run", bundle], capsys, status=64)["error"]

    assert error["message"].startswith("This model takes x")


@pytest.mark.parametrize("dim", ["batch", "batch=", "batch=x", "batch=-1"])
def test_a_wrong_dimension_is_a_usage_error(bundle: str, dim: str, capsys: Capture) -> None:
    assert invoke(["run", bundle, "--random", "--dim", dim]) == TABLE["usage"].exit


def test_wrong_inputs_are_named(bundle: str, tmp_path: Path, capsys: Capture) -> None:
    np.savez(tmp_path / "in.npz", z=np.zeros(3))

    error = parsed(["run", bundle, "-i", str(tmp_path / "in.npz")], capsys, status=65)["error"]

    assert error["code"] == "input"
    assert "'z'" in error["message"] or "'x'" in error["message"]


def test_inspect_shows_and_verifies(bundle: str, capsys: Capture) -> None:
    facts = parsed(["inspect", bundle, "--verify"], capsys)

    assert facts["verified"] is True
    assert facts["plan"]["partitions"]
    assert invoke(["inspect", bundle, "--verify"]) == 0
    assert "every hash is right" in capsys.readouterr().out


def test_a_changed_bundle_is_refused(bundle: str, tmp_path: Path, capsys: Capture) -> None:
    import shutil

    copy = shutil.copytree(bundle, tmp_path / "copy")
    victim = next(p for p in (copy / "artifacts").rglob("*") if p.suffix == ".onnx")
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)

    error = parsed(["inspect", str(copy), "--verify"], capsys, status=65)["error"]

    assert error["code"] == "bundle"
    assert victim.name in error["message"]
    assert invoke(["run", str(copy), "--random"]) == TABLE["bundle"].exit


def test_what_is_no_model_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "page.onnx"
    path.write_text("<html>not found</html>")

    assert invoke(["check", str(path)]) == TABLE["model"].exit
    printed = capsys.readouterr().err
    assert printed.startswith("error[model]: ")
    assert "Traceback" not in printed


def test_bench_times_with_a_control(model: str, capsys: Capture) -> None:
    words = ["bench", model, "--backend", "onnxruntime", "--budget-s", "0.05"]
    rows = parsed([*words, "--against", "onnxruntime"], capsys)["rows"]

    assert len(rows) == 3


def test_devices_backends_and_ops_are_listed(capsys: Capture) -> None:
    assert "devices" in parsed(["devices"], capsys)
    assert invoke(["backends", "--json"]) == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert {"onnxruntime", "numpy", "null"} <= names
    table = parsed(["ops", "--backend", "onnxruntime"], capsys)
    assert any(row["operator"] == "MatMul" for row in table["operators"])
    detail = parsed(["ops", "--backend", "onnxruntime", "--op", "Softmax"], capsys)
    assert detail["versions"]


@pytest.mark.parametrize("words", [["devices"], ["backends"], ["config", "passes"]])
def test_listings_are_tables_in_a_terminal(words: list[str], capsys: Capture) -> None:
    assert invoke(words) == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_a_time_limit_ends_the_command(model: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    words = ["run", model, "--random", "--timeout-s", "0.01", "--json"]
    result = subprocess.run(
        [sys.executable, "-m", "autoglm.cli", *words], capture_output=True, text=True, check=False
    )

    assert result.returncode == TABLE["limit"].exit
    assert json.loads(result.stdout)["error"]["code"] == "limit"


def test_measuring_again_gives_the_same_pack_or_says_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from autoglm.testing import measure

    few = [case for case in measure.all_cases() if "relu" in case.name.lower()][:6]
    monkeypatch.setattr(measure, "all_cases", lambda: few)
    words = ["ops", "measure", "--backend", "onnxruntime", "-o", str(tmp_path)]

    first = parsed(words, capsys)
    again = parsed(words, capsys)
    path = Path(first["pack"])
    path.write_text(path.read_text("utf-8").replace('"yes"', '"wrong"'), "utf-8")
    changed = parsed(words, capsys, status=1)

    assert few
    assert first["diff"] is None
    assert again["diff"] == {"added": [], "removed": [], "changed": []}
    assert changed["diff"]["changed"]


def test_progress_is_drawn_on_a_terminal_only(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    import sys

    words = ["check", model, "--backend", "onnxruntime"]
    invoke(words)
    assert capsys.readouterr().err == ""

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    invoke(words)

    assert capsys.readouterr().err
