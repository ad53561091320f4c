"""What is written is what is read, for every dtype; what is malformed is refused by name."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm.errors import FileMissingError, InputError, LimitError, WriteError
from autoglm.spec import TensorInfo
from autoglm.tensor.disk import load_arrays, random_feeds, save_arrays
from autoglm.tensor.dtype import DTYPES, bits, from_numpy, to_numpy
from autoglm.tensor.keys import escape, split

SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
NAMES = st.one_of(
    st.text(alphabet="ab@/0:.", max_size=6), st.sampled_from(["x@str", "@", "a@@b", "file", "x@0"])
)


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    name = draw(st.sampled_from(sorted(DTYPES)))
    shape = draw(SHAPES)
    count = int(np.prod(shape))
    if name == "string":
        array = np.empty(count, object)
        array[:] = draw(st.lists(TEXT, min_size=count, max_size=count))
        return array.reshape(shape)
    held = to_numpy(name)
    size = count * held.itemsize
    raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    if bits(name) < 8 or name == "bool":
        raw = raw & ((1 << (bits(name) if name != "bool" else 1)) - 1)
    return raw.copy().view(held).reshape(shape)


VALUES = st.recursive(
    st.one_of(st.none(), tensors()), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)


def assert_same(left: Any, right: Any) -> None:
    if left is None or isinstance(left, list):
        assert type(left) is type(right)
        for a, b in zip(left or [], right or [], strict=True):
            assert_same(a, b)
        return
    assert isinstance(right, np.ndarray)
    assert (left.shape, from_numpy(left.dtype)) == (right.shape, from_numpy(right.dtype))
    assert left.dtype == right.dtype
    if left.dtype.kind == "O":
        assert left.tolist() == right.tolist()
    else:
        assert left.tobytes() == right.tobytes()


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_an_npz_gives_back_every_value_bit_by_bit(values: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = save_arrays(Path(folder) / "a.npz", values)
        found = load_arrays(path)

    assert found.keys() == values.keys()
    for name, value in values.items():
        assert_same(value, found[name])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=3))
def test_json_gives_back_every_value(values: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = save_arrays(Path(folder) / "a.json", values)
        json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
        found = load_arrays(path)

    assert found.keys() == values.keys()
    for name, value in values.items():
        assert_same_numbers(value, found[name])


def assert_same_numbers(left: Any, right: Any) -> None:
    """As assert_same, but NaN payloads, which JSON cannot hold, may differ."""
    if isinstance(left, list):
        for a, b in zip(left, right, strict=True):
            assert_same_numbers(a, b)
    elif left is None or left.dtype.kind == "O":
        assert_same(left, right)
    else:
        assert (left.shape, left.dtype) == (right.shape, right.dtype)
        wide = np.complex128 if left.dtype.kind == "c" else np.float64
        if from_numpy(left.dtype) in ("int64", "uint64"):
            assert left.tolist() == right.tolist()
        else:
            np.testing.assert_array_equal(left.astype(wide), right.astype(wide))


@given(NAMES)
def test_an_escaped_name_has_no_suffix(name: str) -> None:
    assert split(escape(name)) == (name, ())
    assert split(escape(name) + "@3@bfloat16") == (name, ("3", "bfloat16"))


def test_the_documented_keys_are_what_is_written(tmp_path: Path) -> None:
    values = {
        "t": np.array(["a", "bc"], object),
        "b": np.zeros(2, to_numpy("bfloat16")),
        "i": np.array([-1]).astype(to_numpy("int4")),
        "s": [np.ones(1, to_numpy("float8_e4m3fn")), np.float32(2)],
        "n": None,
        "a@b": np.float32(1),
    }

    stored = np.load(save_arrays(tmp_path / "x.npz", values), allow_pickle=False)

    assert {k: stored[k].dtype.name for k in stored} == {
        "t@str": "str64",
        "b@bfloat16": "uint16",
        "i@int4": "uint8",
        "s@seqlen": "int64",
        "s@0@float8_e4m3fn": "uint8",
        "s@1": "float32",
        "n@none": "uint8",
        "a@@b": "float32",
    }
    assert stored["i@int4"].tolist() == [15]


def test_numpys_own_files_are_read(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    np.savez_compressed(tmp_path / "a.npz", **{"x": array, "model@v1": array})
    np.save(tmp_path / "y.npy", array)
    info = TensorInfo("model@v1", "float32", (2, 3))

    found = load_arrays(tmp_path / "a.npz", [info])

    assert found["x"].dtype == np.dtype("float32")
    assert found["model@v1"].tolist() == array.tolist()
    assert load_arrays(tmp_path / "y.npy")["y"].tolist() == array.tolist()
    assert load_arrays(tmp_path / "y.npy", [info]).keys() == {"model@v1"}


def test_numpys_own_file_of_an_ml_dtypes_array_is_read_where_the_model_says_what_it_is(
    tmp_path: Path,
) -> None:
    array = np.array([1.5, -2]).astype(to_numpy("bfloat16"))
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "a.npz", x=array)
    info = [TensorInfo("x", "bfloat16", (2,))]

    assert load_arrays(tmp_path / "x.npy", info)["x"].tolist() == array.tolist()
    assert load_arrays(tmp_path / "a.npz", info)["x"].dtype == array.dtype
    with pytest.raises(InputError, match="no ONNX counterpart"):
        load_arrays(tmp_path / "a.npz")


def test_raw_files_are_read_by_specification_or_by_the_models_only_input(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    path = save_arrays(tmp_path / "x.bin", {"x": array})

    assert load_arrays(f"{path}:in:0:int16:2x3")["in:0"].tolist() == array.tolist()
    assert load_arrays(path, raw="x:int16:2,3")["x"].tolist() == array.tolist()
    assert load_arrays(path, [TensorInfo("q", "int16", (2, 3))])["q"].tolist() == array.tolist()


def test_a_folder_gives_the_union_of_its_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.float32(1))
    np.savez(tmp_path / "z.npz", b=np.float32(2))
    (tmp_path / "notes.txt").write_text("not an array")

    assert {k: float(v) for k, v in load_arrays(tmp_path).items()} == {"a": 1.0, "b": 2.0}

    np.savez(tmp_path / "zz.npz", a=np.float32(2))
    with pytest.raises(InputError, match="'a' twice"):
        load_arrays(tmp_path)


def test_json_takes_the_models_dtype_for_nested_lists(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"x": [[1, 2], [3, 4]], "y": [true], "z": ["a"], "s": {"sequence": [[1]]}}')

    plain = load_arrays(path)
    typed = load_arrays(path, [TensorInfo("x", "float16", (2, 2))])

    assert {k: v.dtype.name for k, v in plain.items() if k != "s"} == {
        "x": "int64",
        "y": "bool",
        "z": "object",
    }
    assert typed["x"].dtype == np.float16
    assert plain["s"][0].tolist() == [1]


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


RAW = np.zeros(2, np.uint16)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x@bfloat16": np.zeros(2, np.float32)}, "'x@bfloat16' must hold the raw bits as uint16"),
        ({"x@int4": np.array([16], np.uint8)}, "at most 15; found 16"),
        ({"x@half": RAW}, "'half' is not a suffix"),
        ({"x@": RAW}, "'' is not a suffix"),
        ({"x@01": RAW}, "'01' is not a suffix"),
        ({"x@str": RAW}, "'x@str' must be a unicode array"),
        ({"x@str@0": RAW}, "indices come first"),
        ({"x@bfloat16@str": RAW}, "indices come first"),
        ({"x": RAW, "x@bfloat16": RAW}, "'x' and 'x@bfloat16' are given for one value"),
        ({"x@0": RAW}, "'x@0' is given without 'x@seqlen'"),
        ({"x@seqlen": np.int64(2), "x@0": RAW}, "'x@seqlen' must be the number of elements"),
        ({"x@seqlen": np.int64(2**60)}, "'x@seqlen' must be the number of elements"),
        ({"x@seqlen": np.zeros(3), "x@0": RAW}, "'x@seqlen' must be the number of elements"),
        ({"x": RAW, "x@0": RAW}, "'x' is a tensor and a sequence at once"),
        ({"x": np.array(["2020"], "M8[Y]")}, "not a tensor"),
        ({"x": np.zeros(2, "i4,f4")}, "not a tensor"),
        ({"@".join(["x", *["0"] * 40]): RAW}, "is not a suffix"),
    ],
)
def test_a_malformed_key_is_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        load_arrays(npz(tmp_path / "a.npz", **arrays))


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{"a": 1}], object))

    with pytest.raises(InputError, match="never loaded"):
        load_arrays(path)


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(4 << 20, np.uint8))

    assert path.stat().st_size < 20_000
    with pytest.raises(LimitError, match="at most 1048576 are read"):
        load_arrays(path, max_bytes=1 << 20)


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        header("(1073741824, 1073741824, 1024)"),
        header("(-1, -1)"),
        header("(4,)") + bytes(15),
        header("(4,)") + bytes(17),
        header("(__import__('os').system('true'),)"),
        header("(2,)", "|O") + b"cos\nsystem\n(S'true'\ntR.",
        header("(" * 5000),
        b"\x93NUMPY\x09\x00" + bytes(100),
    ],
)
def test_a_broken_npy_is_refused_wherever_it_lies(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", data)

    for name in ("x.npy", "x.npz"):
        with pytest.raises(InputError):
            load_arrays(tmp_path / name)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 400), st.integers(0, 255), st.sampled_from(["x.npy", "x.npz"]))
def test_a_flipped_byte_gives_an_array_or_a_refusal_but_never_a_crash(
    at: int, byte: int, name: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        save_arrays(path, {"x": np.arange(30, dtype=np.float32)})
        data = bytearray(path.read_bytes())
        data[at % len(data)] = byte
        path.write_bytes(data)
        with contextlib.suppress(InputError, LimitError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, of headers it had to guess at
            assert load_arrays(path) is not None


def test_a_zip_that_lies_or_repeats_itself_is_refused(tmp_path: Path) -> None:
    good = io.BytesIO()
    np.save(good, np.zeros(100, np.float32))
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", good.getvalue())
    whole = path.read_bytes()

    flipped = bytearray(whole)
    flipped[300] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(InputError, match="CRC"):
        load_arrays(path)
    for cut in (0, 1, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            load_arrays(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", good.getvalue())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", good.getvalue())
    with pytest.raises(InputError, match=r"'x.npy' twice"):
        load_arrays(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"'readme.txt', which is not an array"):
        load_arrays(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "must be an object"),
        ('{"x": [[1], [1, 2]]}', "different lengths: 1, 2"),
        ('{"x": [1, [2]]}', "mixed"),
        ('{"x": [null]}', "mixed"),
        ('{"x": {"data": [1], "dtype": "float33"}}', "Unknown dtype 'float33'"),
        ('{"x": {"data": [1], "dtype": ["a"]}}', "Unknown dtype"),
        ('{"x": {"data": [1], "shape": [2]}}', "takes 2 elements; found 1"),
        ('{"x": {"data": [1], "shape": [-1]}}', "a shape is a list of sizes"),
        ('{"x": {"data": [1], "shape": [1e400]}}', "a shape is a list of sizes"),
        ('{"x": {"values": [1]}}', "expected the keys dtype, shape and data"),
        ('{"x": {"data": [256], "dtype": "uint8"}}', "beyond its range"),
        ('{"x": {"data": [8], "dtype": "int4"}}', "beyond its range"),
        ('{"x": {"data": [1.5], "dtype": "int32"}}', "'x' takes int32; found 1.5"),
        ('{"x": {"data": ["a"], "dtype": "float32"}}', "'x' takes float32; found 'a'"),
        ('{"x": {"data": [1%s], "dtype": "float32"}}' % ("0" * 400), "beyond its range"),
        ('{"x": {"sequence": 3}}', "expected a list"),
        ('{"x": ' + "[" * 100_000, "not JSON"),
    ],
)
def test_malformed_json_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)

    with pytest.raises(InputError, match=message):
        load_arrays(path)


def test_what_a_file_cannot_hold_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    one = np.float32(1)
    for name, values in {
        "a.npy": {"x": one, "y": one},
        "b.npy": {"x": [one]},
        "c.npy": {"x": np.zeros(1, to_numpy("bfloat16"))},
        "d.bin": {"x": np.array(["a"], object)},
        "e.npz": {"x": np.array(["ends in NUL\0"], object)},
        "f.npz": {"x": np.array([{}], object)},
        "g.npz": {"a\0b": one},
    }.items():
        with pytest.raises(InputError):
            save_arrays(tmp_path / name, values)
    with pytest.raises(WriteError, match=r"\.npz"):
        save_arrays(tmp_path / "x.csv", {"x": one})

    assert list(tmp_path.iterdir()) == []


def test_missing_and_unknown_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    (tmp_path / "x.bin").write_bytes(bytes(7))

    with pytest.raises(FileMissingError, match="nothing"):
        load_arrays(tmp_path / "nothing.npz")
    with pytest.raises(InputError, match=r"\.npz"):
        load_arrays(tmp_path / "x.csv")
    with pytest.raises(InputError, match="say what it holds"):
        load_arrays(tmp_path / "x.bin")
    with pytest.raises(InputError, match="must hold 8 bytes"):
        load_arrays(tmp_path / "x.bin", raw="x:float32:2")
    with pytest.raises(InputError, match="name:dtype:shape"):
        load_arrays(tmp_path / "x.bin", raw="x:float32:two")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no arrays"):
        load_arrays(tmp_path / "empty")


def test_random_feeds_are_repeatable_and_fit_their_infos() -> None:
    infos = [TensorInfo(name, name, ("batch", 4, None)) for name in sorted(DTYPES)] + [
        TensorInfo("attention_mask", "int64", ("batch", 7)),
        TensorInfo("position_ids", "int64", (1, 5)),
        TensorInfo("input_ids", "int64", (1, 64)),
        TensorInfo("items", "float32", (2,), "sequence"),
        TensorInfo("maybe", "float32", (2,), "optional"),
    ]

    one, two = (random_feeds(infos, 7, {"batch": 3}) for _ in range(2))
    other = random_feeds(infos, 8, {"batch": 3})

    for info in infos[: len(DTYPES)]:
        assert one[info.name].shape == (3, 4, 1)
        assert from_numpy(one[info.name].dtype) == info.dtype
        assert one[info.name].tolist() == two[info.name].tolist()
    assert one["float32"].tolist() != other["float32"].tolist()
    assert np.isfinite(one["float8_e8m0fnu"].astype(np.float32)).all()
    assert one["attention_mask"].tolist() == [[1] * 7] * 3
    assert one["position_ids"].tolist() == [[0, 1, 2, 3, 4]]
    assert set(one["input_ids"].reshape(-1).tolist()) <= set(range(16))
    assert [v.shape for v in one["items"]] == [(2,), (2,)]
    assert one["maybe"] is None


def test_random_feeds_name_an_unknown_dimension_and_a_shape_too_large() -> None:
    with pytest.raises(InputError, match="'bath'; symbolic ones: batch"):
        random_feeds([TensorInfo("x", "float32", ("batch",))], 0, {"bath": 2})
    with pytest.raises(InputError, match="too large"):
        random_feeds([TensorInfo("x", "float32", (1 << 50,))])
