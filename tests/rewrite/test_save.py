"""A saved model has aligned weights beside it, can be moved, and reads back the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models import Builder, branch, mlp

from autoglm.rewrite.facts import model_digest
from autoglm.rewrite.save import input_infos, output_infos, save_onnx, weight_bytes
from autoglm.spec import TensorInfo


@pytest.mark.parametrize("alignment", [64, 4096, 16384])
def test_every_weight_in_the_data_file_is_aligned(tmp_path: Path, alignment: int) -> None:
    save_onnx(mlp(width=67, layers=3), tmp_path / "m.onnx", alignment=alignment)

    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    entries = [
        {e.key: e.value for e in t.external_data}
        for t in model.graph.initializer
        if t.external_data
    ]
    assert len(entries) == 3
    assert all(int(e["offset"]) % max(alignment, 4096) == 0 for e in entries)
    assert {e["location"] for e in entries} == {"m.data"}


def test_a_moved_model_reads_back_the_same(tmp_path: Path) -> None:
    model = mlp(width=64)
    (tmp_path / "a").mkdir()
    save_onnx(model, tmp_path / "a" / "m.onnx")
    before = model_digest(model)

    shutil.move(tmp_path / "a", tmp_path / "b")

    assert model_digest(ir.load(tmp_path / "b" / "m.onnx")) == before
    assert model_digest(model) == before


def test_strings_and_4_bit_weights_are_kept(tmp_path: Path) -> None:
    b = Builder()
    text = np.array(["ab", "ü"], object)
    b.weights.append(onnx.helper.make_tensor("t", 8, [2], [s.encode() for s in text]))
    codes = b.constant((np.arange(4096) % 16 - 8).astype(ml_dtypes.int4))
    model = b.model(b.op("Identity", "t"), b.op("Identity", codes))

    save_onnx(model, tmp_path / "m.onnx")

    back = ir.load(tmp_path / "m.onnx")
    assert model_digest(back) == model_digest(model)
    assert weight_bytes(model) == 2048


def test_the_edge_of_a_model() -> None:
    model = branch()
    extra = model.graph.inputs[0]

    assert [i.name for i in input_infos(model)] == [v.name for v in model.graph.inputs]
    model.graph.initializers[extra.name or ""] = extra  # an input that a weight already gives
    extra.const_value = ir.tensor(np.zeros((2, 4), np.float32), name=extra.name)
    assert [i.name for i in input_infos(model)] == [v.name for v in model.graph.inputs[1:]]
    assert all(isinstance(o, TensorInfo) and o.dtype == "float32" for o in output_infos(model))
