"""The NumPy backend's contract, and its kernels against formulas of their own."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from models import Builder

from autoglm.backends.numpy import NumPy
from autoglm.backends.numpy.cast import convert
from autoglm.errors import CompileError, ExecutionError, InputError
from autoglm.spec import CompileOptions, RunOptions, Session
from autoglm.tensor.dtype import from_numpy, to_numpy, to_onnx

RNG = np.random.default_rng(11)


def opened(model: ir.Model) -> Session:
    with tempfile.TemporaryDirectory() as folder:
        artifact = NumPy().compile(model, CompileOptions(), Path(folder))
        return NumPy().open(artifact, Path(folder), RunOptions())


def run(model: ir.Model, *arrays: np.ndarray) -> list[Any]:
    session = opened(model)
    names = [info.name for info in session.inputs]
    return list(session.run(dict(zip(names, arrays, strict=True))).values())


def single(
    kind: str,
    *arrays: np.ndarray,
    opset: int = 25,
    ml: int = 5,
    outputs: int = 1,
    **attributes: Any,
) -> Any:
    """One node, of any dtype and domain, without onnx's checker."""
    domain, _, short = kind.rpartition("::")
    values = [
        ir.Value(
            name=f"x{i}",
            type=ir.TensorType(ir.DataType(to_onnx(from_numpy(a.dtype)))),
            shape=ir.Shape(a.shape),
        )
        for i, a in enumerate(arrays)
    ]
    node = ir.node(
        short,
        values,
        attributes=attributes,
        domain=domain,
        num_outputs=outputs,
    )
    for i, value in enumerate(node.outputs):
        value.name = f"y{i}"
    opsets = {"": opset, "ai.onnx.ml": ml, "ai.onnx.preview.training": 1}
    graph = ir.Graph(values, node.outputs, nodes=[node], opset_imports=opsets)
    results = run(ir.Model(graph, ir_version=12), *arrays)
    return results if outputs > 1 else results[0]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def texts(*values: str) -> np.ndarray:
    return np.array(values, object)


# --- the contract


def test_outputs_share_nothing_with_feeds_or_weights() -> None:
    b = Builder()
    x = b.input("x", (2, 3))
    session = opened(b.model(b.op("Identity", x), b.op("Identity", b.constant(np.ones(3)))))
    array = np.zeros((2, 3), np.float32)

    for result in session.run({"x": array}).values():
        result += 5

    assert not array.any()
    np.testing.assert_array_equal(list(session.run({"x": array}).values())[1], 1)


def test_an_operator_without_kernel_is_refused_at_compile(tmp_path: Path) -> None:
    b = Builder()
    model = b.model(b.op("Conv", b.input("x", (1, 1, 3, 3)), b.weight(1, 1, 2, 2), name="c"))

    with pytest.raises(CompileError, match="'c': Conv of opset 11 has no NumPy kernel"):
        NumPy().compile(model, CompileOptions(), tmp_path)


def test_wrong_feeds_and_closed_sessions_are_named() -> None:
    b = Builder()
    session = opened(b.model(b.op("Neg", b.input("x", (2,)))))

    with pytest.raises(InputError, match=r"takes float32 \[2\]; found int64"):
        session.run({"x": np.zeros(2, np.int64)})
    session.close()
    with pytest.raises(ExecutionError, match="closed"):
        session.run({"x": np.zeros(2, np.float32)})


def test_the_plug_describes_itself() -> None:
    plug = NumPy()

    assert plug.version() == np.__version__
    assert [device.kind for device in plug.probe()] == ["cpu"]
    assert plug.capabilities().speed == 0.05
    assert not plug.capabilities().precisions["fp16"].ok


# --- casts


def _grid(name: str) -> np.ndarray:
    """Every value of a small float, as float64."""
    width = 8 if name.startswith("float8") else int(name[5])
    return np.arange(1 << width, dtype=np.uint8).view(to_numpy(name)).astype(np.float64)


SMALL = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float4_e2m1fn",
         "float6_e2m3fn", "float6_e3m2fn"]  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
@given(x=hnp.arrays(np.float32, 16, elements=st.floats(-(2.0**20), 2.0**20, width=32)))
def test_a_saturating_cast_takes_the_nearest_value(name: str, x: np.ndarray) -> None:
    grid = _grid(name)
    grid = grid[np.isfinite(grid)]

    got = convert(x, name).astype(np.float64)

    error = np.abs(got - x.astype(np.float64))
    least = np.abs(grid[None, :] - x.astype(np.float64)[:, None]).min(1)
    np.testing.assert_array_equal(error, least)


@given(x=hnp.arrays(np.int32, 16))
@pytest.mark.parametrize("name", ["int4", "uint4", "int2", "uint2"])
def test_narrow_integers_keep_the_low_bits(name: str, x: np.ndarray) -> None:
    width = int(name[-1])
    low = x.astype(np.int64) % (1 << width)
    signed = np.where(low >= 1 << (width - 1), low - (1 << width), low)

    got = convert(x, name).astype(np.int64)

    np.testing.assert_array_equal(got, low if name.startswith("u") else signed)


def test_e8m0_rounds_by_mode_and_flags_what_it_cannot_hold() -> None:
    x = np.array([1.0, 1.25, 1.5, 3.9, 0.0, np.inf, np.nan], np.float32)
    name = "float8_e8m0fnu"

    assert convert(x, name)[:4].astype(float).tolist() == [1, 2, 2, 4]
    assert convert(x, name, rounding="down")[:4].astype(float).tolist() == [1, 1, 1, 2]
    assert convert(x, name, rounding="nearest")[:4].astype(float).tolist() == [1, 1, 2, 4]
    assert convert(x, name).view(np.uint8)[4:].tolist() == [0, 254, 255]
    strict = convert(x, name, saturate=False, rounding="nearest")
    assert strict.view(np.uint8)[4:].tolist() == [255, 255, 255]


def test_strings_and_numbers() -> None:
    numbers = single("Cast", texts("1.5", "-INF", "nan", "1e-3"), to=1)
    np.testing.assert_array_equal(numbers, np.array([1.5, -np.inf, np.nan, 1e-3], np.float32))

    spelled = single("Cast", np.array([1.5, np.inf, np.nan, 3.0], np.float32), to=8)
    assert spelled.tolist() == ["1.5", "INF", "NaN", "3"]


def test_bit_cast_keeps_the_bits() -> None:
    x = np.array([1.0, -2.5], np.float32)
    np.testing.assert_array_equal(single("BitCast", x, opset=26, to=6), x.view(np.int32))

    nibbles = np.array([-8, -1, 7], ml_dtypes.int4)
    np.testing.assert_array_equal(
        single("BitCast", nibbles, opset=26, to=to_onnx("uint4")).astype(int), [8, 15, 7]
    )


# --- quantisation


@pytest.mark.parametrize("target", ["int4", "uint8", "int8", "uint16"])
@settings(max_examples=20)
@given(x=hnp.arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)))
def test_quantising_twice_changes_nothing(target: str, x: np.ndarray) -> None:
    scale = np.array([0.5, 2.0, 4.0], np.float32)
    zero = np.zeros(3, to_numpy(target))

    once = single("QuantizeLinear", x, scale, zero, axis=0)
    back = single("DequantizeLinear", once, scale, zero, axis=0)

    again = single("QuantizeLinear", back, scale, zero, axis=0)
    np.testing.assert_array_equal(again.astype(int), once.astype(int))
    inside = np.abs(once.astype(int)) < 7
    low = 0 if target.startswith("u") else -1000
    error = np.abs(back - np.maximum(x, low)) / scale[:, None]
    assert (error[inside & (once.astype(int) > 0)] <= 0.5 + 1e-6).all()


def test_dynamic_quantisation_covers_the_range() -> None:
    x = normal(50)

    y, scale, zero = single("DynamicQuantizeLinear", x, outputs=3, opset=21)

    back = (y.astype(np.float32) - zero.astype(np.float32)) * scale
    assert np.abs(back - x).max() <= scale * 0.51
    assert {int(y.min()), int(y.max())} == {0, 255}


def test_integer_products_are_exact() -> None:
    a = RNG.integers(0, 256, (5, 7)).astype(np.uint8)
    b = RNG.integers(-128, 128, (7, 3)).astype(np.int8)
    shift = np.array([3], np.uint8)

    got = single("MatMulInteger", a, b, shift)

    np.testing.assert_array_equal(got, (a.astype(int) - 3) @ b.astype(int))


# --- strings


def test_stop_words_go_and_case_changes() -> None:
    x = texts("monday", "Tuesday", "FRIDAY")

    got = single("StringNormalizer", x, stopwords=["MONDAY"], case_change_action="UPPER")
    kept = single("StringNormalizer", x, stopwords=["MONDAY"], is_case_sensitive=1)
    none = single("StringNormalizer", texts("a"), stopwords=["a"])

    assert got.tolist() == ["TUESDAY", "FRIDAY"]
    assert kept.tolist() == x.tolist()
    assert none.tolist() == [""]


def test_split_pads_and_counts() -> None:
    pieces, counts = single("StringSplit", texts("a b  c", "", "d"), outputs=2)
    assert pieces.tolist() == [["a", "b", "c"], ["", "", ""], ["d", "", ""]]
    assert counts.tolist() == [3, 0, 1]

    pieces, _ = single("StringSplit", texts("x,,y"), outputs=2, delimiter=",", maxsplit=1)
    assert pieces.tolist() == [["x", ",y"]]


def test_match_is_of_the_whole_string_and_odd_patterns_are_refused() -> None:
    assert single("RegexFullMatch", texts("ab1", "xab1"), pattern="ab[0-9]").tolist() == [
        True,
        False,
    ]

    for pattern in ("(", r"(?=a)a", r"(a+)+$", r"\1"):
        with pytest.raises(CompileError, match="RegexFullMatch: pattern"):
            single("RegexFullMatch", texts("a"), pattern=pattern)


def test_n_grams_are_counted_with_skips() -> None:
    got = single(
        "TfIdfVectorizer", np.array([1, 2, 1, 2, 3]), mode="TF", min_gram_length=1,
        max_gram_length=2, max_skip_count=1, ngram_counts=[0, 2], ngram_indexes=[0, 2, 1],
        pool_int64s=[1, 3, 1, 2],
    )  # fmt: skip

    # 1 appears twice, 3 once; the pair (1, 2) twice side by side and never with one between.
    assert got.tolist() == [2, 2, 1]


def test_labels_map_and_fall_back() -> None:
    got = single(
        "ai.onnx.ml::LabelEncoder", texts("a", "z", "b"), ml=4,
        keys_strings=["a", "b"], values_int64s=[5, 6], default_int64=-1,
    )  # fmt: skip

    assert got.tolist() == [5, -1, 6]


# --- images


@pytest.mark.parametrize("pixel_format", ["RGB", "BGR", "Grayscale"])
def test_a_png_decodes_to_its_pixels(pixel_format: str) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    stream = io.BytesIO()
    image.fromarray(pixels).save(stream, "PNG")

    got = single(
        "ImageDecoder", np.frombuffer(stream.getvalue(), np.uint8), pixel_format=pixel_format
    )

    if pixel_format == "Grayscale":
        luma = pixels @ np.array([0.299, 0.587, 0.114])
        assert got.shape == (4, 6, 1)
        assert np.abs(got[:, :, 0] - luma).max() <= 1
    else:
        np.testing.assert_array_equal(got, pixels if pixel_format == "RGB" else pixels[:, :, ::-1])


def test_bytes_that_are_no_image_give_an_empty_one() -> None:
    pytest.importorskip("PIL.Image")

    assert single("ImageDecoder", np.arange(50, dtype=np.uint8)).shape == (0, 0, 3)


# --- signals


@pytest.mark.parametrize("onesided", [0, 1])
def test_dft_is_its_definition(onesided: int) -> None:
    x = normal(2, 7, 1)
    n = np.arange(7)
    table = np.exp(-2j * np.pi * np.outer(n, n) / 7)

    got = single("DFT", x, opset=19, axis=1, onesided=onesided)

    want = np.einsum("kn,bn->bk", table, x[..., 0])[:, : 4 if onesided else 7]
    np.testing.assert_allclose(got[..., 0] + 1j * got[..., 1], want, atol=1e-5)


def test_stft_is_the_transform_of_each_frame() -> None:
    x, window = normal(1, 32, 1), np.hanning(8).astype(np.float32)

    got = single("STFT", x, np.array(4), window)

    frames = np.stack([x[0, i : i + 8, 0] * window for i in range(0, 25, 4)])
    np.testing.assert_allclose(got[0, ..., 0] + 1j * got[0, ..., 1], np.fft.rfft(frames), atol=1e-5)


# --- the rest


def test_sixteen_bit_and_unsigned_arithmetic() -> None:
    x = np.array([7, 60000, 3], np.uint16)
    y = np.array([2, 7, 5], np.uint16)
    np.testing.assert_array_equal(single("Div", x, y), [3, 8571, 0])
    np.testing.assert_array_equal(single("Max", x, y), [7, 60000, 5])

    signed = np.array([-7, 7], np.int16)
    np.testing.assert_array_equal(single("Div", signed, np.array([2, -2], np.int16)), [-3, -3])


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("exclusive", [0, 1])
def test_running_product(reverse: int, exclusive: int) -> None:
    x = np.array([2.0, 3.0, 4.0], np.float32)

    got = single("CumProd", x, np.array(0), opset=26, reverse=reverse, exclusive=exclusive)

    want = {(0, 0): [2, 6, 24], (0, 1): [1, 2, 6], (1, 0): [24, 12, 4], (1, 1): [12, 4, 1]}
    assert got.tolist() == want[reverse, exclusive]


def test_deformable_convolution_without_offsets_is_convolution() -> None:
    x, w = normal(1, 2, 5, 6), normal(3, 2, 2, 2)

    got = single("DeformConv", x, w, np.zeros((1, 8, 4, 5), np.float32), opset=22)

    patches = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (2, 3))
    np.testing.assert_allclose(got, np.einsum("nchwij,mcij->nmhw", patches, w), atol=1e-5)


def test_unpooling_puts_values_back_where_they_were() -> None:
    x = np.array([[[[5.0, 8.0]]]], np.float32)
    places = np.array([[[[1, 6]]]])

    got = single("MaxUnpool", x, places, opset=22, kernel_shape=[2, 2], strides=[2, 2])

    assert got.reshape(-1).tolist() == [0, 5, 0, 0, 0, 0, 8, 0]


def test_columns_sum_where_blocks_overlap() -> None:
    columns = np.ones((1, 4, 4), np.float32)

    got = single("Col2Im", columns, np.array([3, 3]), np.array([2, 2]))

    assert got[0, 0].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def test_p_norm_pool() -> None:
    x = normal(1, 1, 4)

    got = single("LpPool", x, opset=22, kernel_shape=[2], p=3)

    powers = np.abs(x[0, 0]) ** 3
    np.testing.assert_allclose(got[0, 0], np.cbrt(powers[:-1] + powers[1:]), rtol=1e-5)


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
def test_linear_attention_token_by_token_is_the_same(rule: str) -> None:
    q, k, v = normal(1, 4, 6), normal(1, 4, 6), normal(1, 4, 4)
    decay, beta = -np.abs(normal(1, 4, 2)), np.abs(normal(1, 4, 2))
    state = np.zeros((1, 2, 3, 2), np.float32)
    attributes = {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": rule}
    kind = {"opset": 27, "outputs": 2, **attributes}

    whole, final = single("LinearAttention", q, k, v, state, decay, beta, **kind)

    rows = []
    for t in range(4):
        now = [a[:, t : t + 1] for a in (q, k, v)]
        gates = [a[:, t : t + 1] for a in (decay, beta)]
        row, state = single("LinearAttention", *now, state, *gates, **kind)
        rows.append(row)
    np.testing.assert_allclose(np.concatenate(rows, 1), whole, atol=1e-5)
    np.testing.assert_allclose(state, final, atol=1e-5)
    if rule == "linear":
        keys = k.reshape(4, 2, 3).transpose(1, 2, 0)
        values = v.reshape(4, 2, 2).transpose(1, 0, 2)
        np.testing.assert_allclose(final[0], keys @ values, atol=1e-5)


def test_momentum_steps_down_the_gradient() -> None:
    x, g, v = normal(3), normal(3), normal(3)

    new, speed = single(
        "ai.onnx.preview.training::Momentum", np.array(0.1, np.float32), np.array(1), x, g, v,
        outputs=2, alpha=0.9, beta=0.5, norm_coefficient=0.0, mode="standard",
    )  # fmt: skip

    np.testing.assert_allclose(speed, 0.9 * v + 0.5 * g, rtol=1e-5)
    np.testing.assert_allclose(new, x - 0.1 * speed, rtol=1e-5)


def test_moves_take_any_dtype() -> None:
    fp8 = np.arange(6).astype(ml_dtypes.float8_e5m2).reshape(2, 3)
    np.testing.assert_array_equal(single("Transpose", fp8), fp8.T)

    words = texts("a", "b", "c")
    assert single("Gather", words, np.array([2, 0])).tolist() == ["c", "a"]
    assert single("Slice", words, np.array([-1]), np.array([-9]), np.array([0]),
                  np.array([-2])).tolist() == ["c", "a"]  # fmt: skip
