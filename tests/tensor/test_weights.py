"""Weights lie aligned, once each, beside the graph; they are mapped and shared, not read."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from autoglm.errors import FileMissingError, ModelError, WriteError
from autoglm.tensor.dtype import DTYPES, to_numpy
from autoglm.tensor.weights import load_onnx, save_onnx

ir = pytest.importorskip("onnx_ir")


def model(**weights: np.ndarray) -> ir.Model:
    values = []
    for name, array in weights.items():
        text = array.dtype.kind == "O"
        kind = ir.StringTensor if text else ir.tensor
        value = ir.Value(name=name, const_value=kind(array, name=name))
        value.shape, value.dtype = ir.Shape(array.shape), value.const_value.dtype
        values.append(value)
    nodes = [ir.node("Identity", [value]) for value in values]
    for node, name in zip(nodes, weights, strict=True):
        node.outputs[0].name = f"{name}_out"
    graph = ir.Graph(
        [], [n.outputs[0] for n in nodes], nodes=nodes, initializers=values, opset_imports={"": 24},
        name="g",
    )  # fmt: skip
    return ir.Model(graph, ir_version=13)


def weight(source: ir.Model, name: str) -> ir.TensorProtocol:
    tensor = source.graph.initializers[name].const_value
    assert tensor is not None
    return tensor


@pytest.mark.parametrize("alignment", [1, 64, 8192])
def test_every_dtype_comes_back_and_starts_aligned(tmp_path: Path, alignment: int) -> None:
    random = np.random.default_rng(0)
    arrays = {
        name: random.integers(0, 2, (7, 300)).astype(to_numpy(name))
        for name in DTYPES
        if name not in ("string", "float6_e2m3fn", "float6_e3m2fn", "complex64", "complex128")
    }
    source = model(**arrays)

    loaded = load_onnx(save_onnx(source, tmp_path / "m.onnx", alignment=alignment, inline_below=1))

    for name, array in arrays.items():
        tensor = weight(loaded, name)
        assert tensor.numpy().tobytes() == array.tobytes(), name
        assert tensor.offset % max(alignment, 4096 if tensor.nbytes >= 4096 else 1) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.data", "m.onnx"]


def test_small_weights_and_text_stay_in_the_graph(tmp_path: Path) -> None:
    source = model(small=np.zeros(4, "f4"), text=np.array([b"a"] * 999, object))

    loaded = load_onnx(save_onnx(source, tmp_path / "m.onnx"))

    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert weight(loaded, "text").numpy().shape == (999,)


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    one = np.arange(4096, dtype=np.float32)
    same_bytes = one.view(np.int32).reshape(64, 64)
    source = model(a=one, b=one.copy(), c=same_bytes, d=one + 1)

    loaded = load_onnx(save_onnx(source, tmp_path / "m.onnx"))

    assert (tmp_path / "m.data").stat().st_size == 2 * one.nbytes
    assert weight(loaded, "a").offset == weight(loaded, "c").offset
    assert np.array_equal(weight(loaded, "c").numpy(), same_bytes)
    assert np.array_equal(weight(loaded, "d").numpy(), one + 1)


def test_the_model_is_unchanged_and_the_folder_can_move(tmp_path: Path) -> None:
    array = np.arange(4096, dtype=np.float32)
    source = model(a=array)
    before = weight(source, "a")

    (tmp_path / "one").mkdir()
    save_onnx(source, tmp_path / "one" / "m.onnx")
    (tmp_path / "one").rename(tmp_path / "two")

    assert weight(source, "a") is before
    assert np.array_equal(weight(load_onnx(tmp_path / "two" / "m.onnx"), "a").numpy(), array)


def test_a_model_can_be_saved_over_itself(tmp_path: Path) -> None:
    a, b = np.arange(4096, dtype=np.float32), np.arange(1024, dtype=np.float32)
    path = save_onnx(model(a=a, b=b), tmp_path / "m.onnx")
    loaded = load_onnx(path)

    save_onnx(loaded, path, alignment=65536)

    for source in (loaded, load_onnx(path)):
        assert np.array_equal(weight(source, "a").numpy(), a)
        assert np.array_equal(weight(source, "b").numpy(), b)
    # What is saved from the old object later must not name the old file's offsets.
    assert weight(loaded, "b").offset == weight(load_onnx(path), "b").offset == 65536


def test_onnx_runtime_reads_what_is_written(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    array = np.arange(4096, dtype=np.float32)
    path = save_onnx(model(a=array, b=array), tmp_path / "m.onnx")

    outputs = runtime.InferenceSession(str(path)).run(None, {})

    assert all(np.array_equal(o, array) for o in outputs)


def test_mapped_weights_are_copied_in_chunks(tmp_path: Path) -> None:
    big = np.zeros(64 << 20, np.uint8)
    path = save_onnx(model(a=big, b=big[: 32 << 20]), tmp_path / "m.onnx")
    loaded = load_onnx(path)
    del big

    tracemalloc.start()
    save_onnx(loaded, tmp_path / "n.onnx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 8 << 20


def test_a_failed_save_leaves_the_old_model_whole(tmp_path: Path) -> None:
    array = np.arange(4096, dtype=np.float32)
    path = save_onnx(model(a=array), tmp_path / "m.onnx")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    class Broken(ir.Tensor):
        def numpy(self) -> np.ndarray:
            raise OSError(28, "No space left on device")

    broken = model(a=array, b=array + 1)
    broken.graph.initializers["b"].const_value = Broken(array + 1, name="b")
    with pytest.raises(WriteError, match="No space"):
        save_onnx(broken, path)

    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_broken_files_are_refused(tmp_path: Path) -> None:
    path = save_onnx(model(a=np.arange(4096, dtype=np.float32)), tmp_path / "m.onnx")
    data = tmp_path / "m.data"

    with pytest.raises(FileMissingError):
        load_onnx(tmp_path / "none.onnx")
    (tmp_path / "html.onnx").write_text("<html></html>")
    with pytest.raises(ModelError, match="not a readable ONNX model"):
        load_onnx(tmp_path / "html.onnx")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"'a' is not inside m\.data"):
        load_onnx(path)
    data.unlink()
    with pytest.raises(ModelError, match=r"'a' is not inside m\.data"):
        load_onnx(path)
    data.symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match=r"'a' is not inside m\.data"):
        load_onnx(path)


# Maps the weights, touches every page, waits, and says what its pages cost it.
READER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from autoglm.tensor.weights import load_onnx
    model = load_onnx(Path(sys.argv[1]))
    total = sum(int(v.const_value.numpy().sum()) for v in model.graph.initializers.values())
    print(total, flush=True)
    sys.stdin.readline()
    inside, found = False, {"Rss:": 0, "Pss:": 0, "Private_Dirty:": 0}
    for line in open("/proc/self/smaps"):
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            inside = line.rstrip().endswith("m.data")
        elif inside and words[0] in found:
            found[words[0]] += int(words[1])
    print(*found.values(), flush=True)
""")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's smaps")
def test_two_processes_that_open_one_file_share_its_pages(tmp_path: Path) -> None:
    count = 32 << 20
    path = save_onnx(model(a=np.ones(count, np.uint8)), tmp_path / "m.onnx")

    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert int(reader.stdout.readline()) == count
    # Both have touched every page by now, and both stay until both have looked.
    found = []
    for reader in readers:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write("look\n")
        reader.stdin.flush()
        found.append([int(word) for word in reader.stdout.readline().split()])
        if len(found) == 1:
            first = found[0]
    for reader in readers:
        reader.communicate(timeout=30)

    rss, pss, dirty = first
    assert rss >= count // 1024
    assert pss <= 0.55 * rss
    assert dirty == 0
