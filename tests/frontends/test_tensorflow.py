"""TensorFlow: detected without TensorFlow, refused with a reason; converted for real where the
toolchain is installed.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from types import SimpleNamespace as Spec
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm import api
from autoglm.errors import (
    BackendUnavailableError,
    FileMissingError,
    ModelError,
    ModelSecurityError,
    UnsupportedOperatorError,
)
from autoglm.frontends.tensorflow.load import WORKER, _read, arguments, load, note, refuse
from autoglm.frontends.tensorflow.operators import FUNCTIONS, complete
from autoglm.frontends.tensorflow.source import Source, check, recognise
from autoglm.registry import frontend_for

ROOT = Path(__file__).parents[2]
TFLITE = struct.pack("<I", 16) + b"TFL3" + bytes(64)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    return folder


def test_sources_are_told_by_names_and_first_bytes(tmp_path: Path, saved: Path) -> None:
    plain = tmp_path / "model.bin"
    plain.write_bytes(TFLITE)

    assert recognise(saved) == Source("saved_model", saved)
    assert recognise(f"{saved}#double") == Source("saved_model", saved, "double")
    assert recognise(plain) == Source("tflite", plain)
    assert recognise(tmp_path / "a.keras") == Source("keras", tmp_path / "a.keras")
    assert recognise(tmp_path / "a.h5") == Source("keras", tmp_path / "a.h5")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "#", "nothing#here", "a.onnx"])
def test_anything_else_is_not_ours(name: str) -> None:
    assert recognise(name) is None


def test_detecting_starts_no_tensorflow(saved: Path) -> None:
    assert frontend_for(str(saved)).name == "tensorflow"
    assert not {"tensorflow", "tf2onnx"} & set(sys.modules)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.tflite", b"", "not TFL3"),
        ("a.tflite", b"\x10\0\0\0TFL", "not TFL3"),
        ("a.tflite", b"\xff\xff\xff\x7fTFL3" + bytes(64), "root lies at byte 2147483647 of 72"),
        ("a.tflite", b"\0\0\0\0TFL3" + bytes(64), "root lies at byte 0"),
        ("a.keras", b"not a zip archive", "first bytes"),
        ("a.h5", b"\x89HDF", "first bytes"),
    ],
)
def test_a_damaged_file_is_refused_before_tensorflow_starts(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    found = recognise(path)
    assert found is not None

    with pytest.raises(ModelError, match=reason):
        load(found)


@given(st.binary(max_size=64))
def test_any_bytes_are_either_refused_or_left_to_tensorflow(
    tmp_path_factory: Any, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.tflite"
    path.write_bytes(data)
    found = recognise(path)
    assert found is not None

    try:
        check(found)
    except ModelError:
        return
    assert data[4:8] == b"TFL3"


def test_an_empty_graph_and_a_missing_file_are_named(saved: Path) -> None:
    (saved / "saved_model.pb").write_bytes(b"")

    with pytest.raises(ModelError, match="it is empty"):
        check(Source("saved_model", saved))
    with pytest.raises(FileMissingError, match=r"no/such\.tflite"):
        check(Source("tflite", Path("no/such.tflite")))


def test_without_the_toolchain_the_error_says_how_to_get_it(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM_CACHE_DIR", str(tmp_path / "empty"))

    with pytest.raises(BackendUnavailableError) as caught:
        load(Source("saved_model", saved))

    assert caught.value.hint == "autoglm toolchain install tensorflow"


def test_the_workers_arguments_name_source_output_kind_and_signature(tmp_path: Path) -> None:
    source = Source("saved_model", tmp_path, "double")

    found = arguments(source, tmp_path / "out.onnx")

    assert found == [
        *(str(tmp_path), str(tmp_path / "out.onnx"), "--kind", "saved_model", "--opset", "18"),
        *("--signature", "double"),
    ]


def test_the_note_names_the_signature_taken_and_how_to_take_another() -> None:
    facts = {"tensorflow": "2.21.0", "tf2onnx": "1.17.0"}
    chosen = {**facts, "signature": "a", "signatures": ["a", "b"]}

    assert "`m#NAME` takes another: b" in note(Source("saved_model", Path("m")), chosen)
    assert "#NAME" not in note(Source("keras", Path("m.keras")), chosen)
    assert note(Source("tflite", Path("m")), facts).startswith("Converted by TensorFlow 2.21.0")


@pytest.mark.parametrize(
    ("facts", "kind", "text"),
    [
        ({"error": "signature", "signatures": ["a", "b"]}, ModelError, "it has: a, b"),
        ({"error": "unsafe", "ops": ["ReadFile"]}, ModelSecurityError, "run code: ReadFile"),
        ({"error": "failed", "reason": "DecodeError: x"}, ModelError, "cannot convert m: Decode"),
    ],
)
def test_what_the_worker_found_becomes_an_error_with_a_hint(
    facts: dict[str, Any], kind: type[ModelError], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        refuse(Source("saved_model", Path("m")), facts)

    assert caught.value.hint


def _with(op: str, x: np.ndarray, **attributes: Any) -> onnx.ModelProto:
    node = onnx.helper.make_node(op, ["x"], ["y"], name="n", **attributes)
    kind = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    edges = [onnx.helper.make_tensor_value_info(n, kind, x.shape) for n in ("x", "y")]
    graph = onnx.helper.make_graph([node], "g", edges[:1], edges[1:])
    imports = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("approximate", [0, 1])
def test_gelu_and_erfc_of_tensorflow_are_what_they_say(
    tmp_path: Path, dtype: str, approximate: int
) -> None:
    from math import erf, erfc, pi, sqrt, tanh

    from onnx.reference import ReferenceEvaluator

    x = np.linspace(-4, 4, 41).astype(dtype)
    exact = {
        "Erfc": lambda v: erfc(v),
        "TFL_GELU": lambda v: (
            v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 * v**3)))
            if approximate
            else v / 2 * (1 + erf(v / sqrt(2)))
        ),
    }
    tolerance = 2e-3 if dtype == "float16" else 1e-6
    for op, function in exact.items():
        given = {"approximate": approximate} if op == "TFL_GELU" else {}
        model = _with(op, x, **given)

        assert complete(model, 18) == []

        (y,) = ReferenceEvaluator(model).run(None, {"x": x})
        wanted = [function(float(v)) for v in x]
        assert np.abs(y.astype(np.float64) - wanted).max() <= tolerance * max(map(abs, wanted))


def test_completed_operators_are_inlined_and_the_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(_with("Erfc", np.ones(3, np.float32)), path)

    model = _read(path, Source("tflite", Path("m")))

    assert not model.functions
    assert [n.op_type for n in model.graph][-2:] == ["Erf", "Sub"]
    onnx.save(_with("TFL_CUSTOM", np.ones(3, np.float32)), path)
    with pytest.raises(UnsupportedOperatorError, match="operators of m: TFL_CUSTOM"):
        _read(path, Source("tflite", Path("m")))
    assert {"Erfc", "TFL_GELU", "TFL_GELU_tanh"} == set(FUNCTIONS)


def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tensorflow_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_worker_answers_a_failure_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tmp_path / "a"), str(tmp_path / "b"), "--kind", "tflite"]

    assert worker().main(given) == 0  # TensorFlow is not in this environment

    line = capsys.readouterr().out.strip()
    assert json.loads(line.removeprefix("autoglm-answer: "))["error"] == "failed"


def _node(name: str, op: str, *inputs: str, calls: str = "", stream: bytes = b"") -> Any:
    attr = {
        "f": Spec(func=Spec(name=calls), list=Spec(func=[]), s=b""),
        "output_stream": Spec(func=Spec(name=""), list=Spec(func=[]), s=stream),
    }
    return Spec(name=name, op=op, input=inputs, attr=attr)


def _graph(*served: Any, restored: Any = (), **functions: Any) -> Any:
    """A SavedModel as TensorFlow 2 writes it: one function serves, one saves and one restores."""
    bodies = {
        "serve": list(served),
        "save": [_node("s", "SaveV2"), _node("m", "MergeV2Checkpoints")],
        "restore": [_node("r", "RestoreV2"), *restored],
        **functions,
    }
    library = [Spec(signature=Spec(name=name), node_def=body) for name, body in bodies.items()]
    nodes = [
        _node("x", "Placeholder"),
        _node("call", "StatefulPartitionedCall", "x", calls="serve"),
        _node("call_1", "StatefulPartitionedCall", "x", calls="save"),
        _node("call_2", "StatefulPartitionedCall", "^x", calls="restore"),
    ]
    return Spec(
        graph_def=Spec(node=nodes, library=Spec(function=library)),
        saver_def=Spec(save_tensor_name="call_1:0", restore_op_name="call_2"),
        signature_def={"serving_default": Spec(outputs={"y": Spec(name="call:0")})},
        collection_def={},
        object_graph_def=Spec(concrete_functions=["serve"]),
    )


def test_a_saved_models_own_saver_is_no_danger() -> None:
    printed = _node("p", "PrintV2", stream=b"stderr")

    assert worker().unsafe(_graph(_node("mul", "Mul"), printed)) == set()


@pytest.mark.parametrize(
    "op",
    [
        *("PyFunc", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles", "Save", "SaveSlices"),
        *("CreateSummaryFileWriter", "CreateSummaryDbWriter", "SaveDataset", "SaveDatasetV2"),
        *("TextLineDataset", "TFRecordDataset", "FixedLengthRecordDatasetV2", "CSVDataset"),
        *("InitializeTableFromTextFile", "InitializeTableFromTextFileV2", "WholeFileReaderV2"),
        *("SaveV2", "RestoreV2", "MergeV2Checkpoints", "ExperimentalSqlDataset", "RpcServer"),
    ],
)
def test_operators_that_reach_files_are_refused(op: str) -> None:
    assert worker().unsafe(_graph(_node("n", op))) == {op}
    assert worker().unsafe(_graph(uncalled=[_node("n", op)])) == {op}


def test_a_print_into_a_file_is_refused() -> None:
    printed = _node("p", "PrintV2", stream=b"file:///tmp/x")

    assert worker().unsafe(_graph(printed)) == {"PrintV2"}


def test_the_savers_functions_are_not_called_by_what_runs_on_loading() -> None:
    call = _node("c", "PartitionedCall", calls="save")
    old = _node("c", "save")

    for graph in (_graph(call), _graph(old), _graph(restored=[call])):
        assert worker().unsafe(graph) == {"SaveV2", "MergeV2Checkpoints"}


@cache
def made(folder: Path) -> Path:
    from benchmarks.frontends import make

    names = ("cnn", "transformer", "cnn-keras", "cnn-lite", "cnn-int8", "signatures", "reading")
    return make("tensorflow", folder, *names)


@pytest.fixture
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.getbasetemp() / "tensorflow-models")


def _answer(path: Path | str, x: np.ndarray, backend: str) -> np.ndarray:
    with api.open(str(path), backend=backend) as session:
        (y,) = session.run({session.inputs[0].name: x}).values()
    return np.asarray(y)


@pytest.mark.toolchain("tensorflow")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["cnn", "transformer", "cnn-lite.tflite", "cnn-keras.keras"])
def test_models_answer_as_tensorflow_does(models: Path, name: str, backend: str) -> None:
    known = np.load(models / f"{name.partition('.')[0]}.npz")

    y = _answer(models / name, known["x"], backend)

    assert np.abs(y - known["y"]).max() <= 1e-5 * np.abs(known["y"]).max()


@pytest.mark.toolchain("tensorflow")
def test_an_int8_model_answers_within_two_of_its_steps(models: Path) -> None:
    known = np.load(models / "cnn-int8.npz")

    y = _answer(models / "cnn-int8.tflite", known["x"], "onnxruntime")

    assert y.dtype == np.int8
    assert np.abs(y.astype(int) - known["y"].astype(int)).max() <= 2


@pytest.mark.toolchain("tensorflow")
def test_all_transposes_but_the_inputs_are_cancelled(models: Path) -> None:
    report = api.check(str(models / "cnn"), backend="onnxruntime")

    (line,) = [n for n in report.notes if "transposes" in n]
    assert line == "Of 24 transposes in the converted model, 1 stay."


@pytest.mark.toolchain("tensorflow")
def test_a_signature_has_to_be_named_where_none_is_usual(models: Path) -> None:
    known = np.load(models / "signatures.npz")
    with pytest.raises(ModelError, match="it has: double, negate"):
        api.check(str(models / "signatures"), backend="onnxruntime")

    y = _answer(f"{models / 'signatures'}#negate", known["x"], "onnxruntime")

    assert np.array_equal(y, known["y"])


@pytest.mark.toolchain("tensorflow")
def test_a_model_that_reads_files_is_refused_unopened(models: Path) -> None:
    with pytest.raises(ModelSecurityError, match="run code: ReadFile"):
        api.check(str(models / "reading"), backend="onnxruntime")


@pytest.mark.toolchain("tensorflow")
def test_cut_off_files_are_errors_with_a_hint(models: Path, tmp_path: Path) -> None:
    whole = (models / "cnn-lite.tflite").read_bytes()
    for size in (len(whole) // 2, 64):
        path = tmp_path / f"cut-{size}.tflite"
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError) as caught:
            api.check(str(path), backend="onnxruntime")
        assert caught.value.hint
    folder = tmp_path / "cut"
    folder.mkdir()
    graph = (models / "cnn" / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(graph[: len(graph) // 2])
    with pytest.raises(ModelError) as caught:
        api.check(str(folder), backend="onnxruntime")
    assert caught.value.hint
