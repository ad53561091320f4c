# ruff: noqa: E501 (tables read better in one line each)
"""PyTorch sources: answers equal to torch's own, and archives that are opened only when safe."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from autoglm.errors import AutoGLMError, InputError, ModelError, ModelSecurityError
from autoglm.frontends.torch import Torch
from autoglm.frontends.torch.policy import safe_expression, strange_globals
from autoglm.spec import Frontend

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

X = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)


class Net(torch.nn.Module):  # type: ignore[misc]
    """A linear layer, a strided parameter, a buffer and a constant."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(4, 3)
        self.turned = torch.nn.Parameter(torch.randn(3, 5).t().contiguous().t())
        self.register_buffer("shift", torch.arange(5.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.first(x) @ self.turned) + self.shift


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    net, x = Net().eval(), torch.from_numpy(X)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.export.save(program, folder / "net.pt2")
    torch.jit.trace(net, (x,)).save(folder / "traced.pt")
    torch.jit.script(net).save(folder / "scripted.pt")
    return folder


def run(model: ir.Model, *arrays: Any) -> Any:
    names = [str(v.name) for v in model.graph.inputs]
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, dict(zip(names, arrays, strict=True)))[0]


def expected(x: Any) -> Any:
    return Net().eval()(torch.from_numpy(x)).detach().numpy()


def test_the_frontend_keeps_the_protocol_and_detects_by_name_or_object() -> None:
    assert isinstance(Torch(), Frontend)
    assert all(Torch().detect(s) for s in ("m.pt2", "m.pt", Path("m.PTH"), Net()))
    assert not any(Torch().detect(s) for s in ("m.onnx", "folder", 3, object(), b""))


def test_detection_of_a_path_does_not_import_torch() -> None:
    script = (
        "import sys; from autoglm.frontends.torch import Torch; t = Torch();"
        "t.detect('m.onnx'); t.detect('m.pt'); t.detect(object()); print('torch' in sys.modules)"
    )

    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert output.stdout.strip() == "False"


def test_an_exported_archive_keeps_its_dynamic_batch_and_its_lines(files: Path) -> None:
    model = Torch().load(files / "net.pt2")

    batch = np.concatenate([X, X, X])
    np.testing.assert_allclose(run(model, batch), expected(batch), rtol=1e-5, atol=1e-6)
    lines = {n.metadata_props.get("autoglm.line", "") for n in model.graph}
    assert any("test_torch.py:" in line for line in lines)
    names = [n.name for n in model.graph]
    assert len(set(names)) == len(names)
    assert all(n.metadata_props["autoglm.source"] == n.name for n in model.graph)


def test_an_exported_program_and_a_module_answer_as_torch() -> None:
    program = torch.export.export(Net().eval(), (torch.from_numpy(X),))

    np.testing.assert_allclose(run(Torch().load(program), X), expected(X), rtol=1e-5, atol=1e-6)
    model = Torch().load(Net(), example_inputs=[X])
    batch = np.concatenate([X, X, X])
    np.testing.assert_allclose(run(model, batch), expected(batch), rtol=1e-5, atol=1e-6)


def test_a_module_keeps_its_mode() -> None:
    net = Net().train()

    Torch().load(net, example_inputs=[X])

    assert net.training


@pytest.mark.parametrize("name", ["traced.pt", "scripted.pt"])
def test_torchscript_answers_as_torch(files: Path, name: str) -> None:
    model = Torch().load(files / name, example_inputs=[X])

    np.testing.assert_allclose(run(model, X), expected(X), rtol=1e-5, atol=1e-6)


def test_a_traced_archive_knows_its_own_shapes(files: Path) -> None:
    model = Torch().load(files / "traced.pt")

    np.testing.assert_allclose(run(model, X), expected(X), rtol=1e-5, atol=1e-6)


def test_example_inputs_are_asked_for_where_nothing_states_them(files: Path) -> None:
    for source in (files / "scripted.pt", Net()):
        with pytest.raises(InputError) as caught:
            Torch().load(source)

        assert "--inputs" in caught.value.hint


def test_a_module_that_cannot_be_exported_is_one_clear_error() -> None:
    class Bad(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            raise ValueError("first line\nsecond line")

    with pytest.raises(ModelError) as caught:
        Torch().load(Bad(), example_inputs=[X])

    assert "\n" not in str(caught.value)


def rewritten(source: Path, target: Path, change: dict[str, bytes]) -> Path:
    """A copy of an archive with some records replaced or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].split("/")[0] + "/"
        for record in old.namelist():
            new.writestr(record, change.pop(record.removeprefix(root), old.read(record)))
        for name, data in change.items():
            new.writestr(root + name, data)
    return target


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("expr_str", "__import__('os').mkdir('pwned')"),
        ("expr_str", "Symbol('s0').__class__"),
        ("target", "torch.ops.load_library"),
        ("target", "torch.hub.load"),
        ("target", "_operator.methodcaller"),
        ("target", "torch.ops.aten.from_file.default"),
        ("as_operator", "torch.load"),
    ],
)
def test_a_program_that_would_do_more_than_compute_is_refused(
    files: Path, tmp_path: Path, field: str, text: str
) -> None:
    with zipfile.ZipFile(files / "net.pt2") as opened:
        program = json.loads(opened.read("net/models/model.json"))
    program["graph_module"]["graph"]["nodes"][0]["inputs"].append({"extra": {field: text}})
    path = rewritten(
        files / "net.pt2", tmp_path / "m.pt2", {"models/model.json": json.dumps(program).encode()}
    )

    with pytest.raises(ModelSecurityError):
        Torch().load(path)

    assert not Path("pwned").exists()


def test_torchscript_that_reads_files_is_refused(tmp_path: Path) -> None:
    class Reads(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.from_file("/etc/passwd", size=1)

    torch.jit.script(Reads()).save(tmp_path / "m.pt")

    with pytest.raises(ModelSecurityError, match="from_file"):
        Torch().load(tmp_path / "m.pt", example_inputs=[X])


@pytest.mark.parametrize("name", ["net.pt2", "traced.pt"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_archive_is_one_clear_error(
    files: Path, tmp_path: Path, name: str, part: float
) -> None:
    data = (files / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * part)])

    with pytest.raises(AutoGLMError) as caught:
        Torch().load(path, example_inputs=[X])

    assert "\n" not in str(caught.value)


def test_a_damaged_record_is_one_clear_error(files: Path, tmp_path: Path) -> None:
    for record in (
        "models/model.json",
        "data/weights/model_weights_config.json",
        "archive_version",
    ):
        path = rewritten(files / "net.pt2", tmp_path / "m.pt2", {record: b'{"config": {}}'})

        with pytest.raises(AutoGLMError) as caught:
            Torch().load(path)

        assert "\n" not in str(caught.value), record


def test_size_expressions_of_torch_are_safe_and_others_are_not() -> None:
    good = ("s77", "Symbol('s77', positive=True, integer=True)", "Add(Integer(1), Symbol('s0', integer=True))",
            "Max(2, FloorDiv(Symbol('s0', integer=True), Integer(2)))", "2*s0 + 1", "Float('1.5', precision=53)")  # fmt: skip
    bad = ("__import__('os')", "os.system", "Symbol('__x')", "(1).__class__", "s0[0]", "lambda: 1",
           "open('x')", "9**9**9**9", "'a'*9", "Symbol('a b')", "exec", 3, None)  # fmt: skip

    assert all(safe_expression(text) for text in good)
    assert not [text for text in bad if safe_expression(text)]


def test_pickle_opcodes_are_read_without_running_them(tmp_path: Path) -> None:
    import os
    import pickle

    class Runs:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "pwned"),))

    for protocol in range(2, 6):
        assert list(strange_globals(pickle.dumps(Runs(), protocol)))
    assert not list(strange_globals(pickle.dumps({"a": [1, 2.5, "x"]}, 2)))
    assert not (tmp_path / "pwned").exists()
