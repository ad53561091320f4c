"""Kernels of the PyTorch table against formulas of their own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from models import Builder

from autoglm.backends.torch import Torch
from autoglm.backends.torch.lowbit import convert
from autoglm.spec import CompileOptions, RunOptions
from autoglm.tensor.dtype import to_onnx

RNG = np.random.default_rng(7)


def run(model: ir.Model, *arrays: np.ndarray) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        artifact = Torch().compile(model, CompileOptions(), Path(folder))
        session = Torch().open(artifact, Path(folder), RunOptions())
        names = [info.name for info in session.inputs]
        return list(session.run(dict(zip(names, arrays, strict=True))).values())


def op(kind: str, *arrays: np.ndarray, opset: int = 22, outputs: int = 1, **attributes: Any) -> Any:
    b = Builder(opset=opset)
    names = [b.input(f"x{i}", a.shape, a.dtype) for i, a in enumerate(arrays)]
    made = b.op(kind, *names, outputs=outputs, **attributes)
    model = b.model(*(made if outputs > 1 else [made]))
    results = run(model, *arrays)
    return results if outputs > 1 else results[0]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


uint64s = hnp.arrays(np.uint64, 16, elements=st.integers(0, 2**64 - 1))


@settings(max_examples=25)
@given(uint64s, uint64s.map(lambda a: np.maximum(a, 1).astype(np.uint64)))
def test_uint64_divides_over_its_whole_range(x: np.ndarray, y: np.ndarray) -> None:
    np.testing.assert_array_equal(op("Div", x, y), x // y)
    np.testing.assert_array_equal(op("Mod", x, y), x % y)


@settings(max_examples=25)
@given(uint64s, uint64s)
def test_uint64_compares_over_its_whole_range(x: np.ndarray, y: np.ndarray) -> None:
    np.testing.assert_array_equal(op("Less", x, y), x < y)
    np.testing.assert_array_equal(op("Max", x, y), np.maximum(x, y))
    np.testing.assert_array_equal(op("ReduceMin", x, keepdims=0), x.min())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shifts_fill_with_zeros(dtype: Any, direction: str) -> None:
    top = np.iinfo(dtype).max
    x = np.array([top, 1, top // 2 + 1, 5], dtype)
    bits = np.array([1, 3, np.iinfo(dtype).bits - 1, 0], dtype)

    got = op("BitShift", x, bits, direction=direction)

    shifted = x << bits if direction == "LEFT" else x >> bits
    np.testing.assert_array_equal(got, shifted)


FP8 = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"]
singles = hnp.arrays(np.float32, 32, elements=st.floats(width=32, allow_nan=True))


@pytest.mark.parametrize("name", FP8)
@given(x=singles)
def test_fp8_without_saturation_rounds_as_ml_dtypes_does(name: str, x: np.ndarray) -> None:
    want = x.astype(getattr(ml_dtypes, name)).astype(np.float32)

    got = convert(torch.from_numpy(x), name, saturate=False).float().numpy()

    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", FP8)
@given(x=singles)
def test_fp8_saturates_to_its_greatest_value(name: str, x: np.ndarray) -> None:
    dtype = getattr(ml_dtypes, name)
    limit = float(ml_dtypes.finfo(dtype).max)
    want = np.clip(x, -limit, limit).astype(dtype).astype(np.float32)

    got = convert(torch.from_numpy(x), name, saturate=True).float().numpy()

    np.testing.assert_array_equal(got, want)


@given(x=hnp.arrays(np.float32, 32, elements=st.floats(2.0**-100, 2.0**100, width=32)))
def test_e8m0_keeps_the_power_of_two(x: np.ndarray) -> None:
    exact = np.log2(x.astype(np.float64))

    for rounding, want in (("up", np.ceil(exact)), ("down", np.floor(exact))):
        got = convert(torch.from_numpy(x), "float8_e8m0fnu", rounding=rounding).float().numpy()
        np.testing.assert_array_equal(np.log2(got), want)


@given(x=hnp.arrays(np.float32, 32, elements=st.floats(-8, 8, width=32)))
def test_e2m1_takes_the_nearest_value(x: np.ndarray) -> None:
    want = np.clip(x, -6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)

    got = convert(torch.from_numpy(x), "float4_e2m1fn").numpy()

    np.testing.assert_array_equal(got, want)


def _convolved(
    x: np.ndarray, w: np.ndarray, pads: tuple[int, ...], stride: int, dilation: int
) -> np.ndarray:
    """Convolution by its definition."""
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    span = [(k - 1) * dilation + 1 for k in w.shape[2:]]
    rows = (x.shape[2] - span[0]) // stride + 1
    columns = (x.shape[3] - span[1]) // stride + 1
    y = np.zeros((x.shape[0], w.shape[0], rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            part = x[:, :, top : top + span[0] : dilation, left : left + span[1] : dilation]
            y[:, :, i, j] = np.einsum("nchw,mchw->nm", part, w)
    return y


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0), (2, 0, 0, 1)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_conv_with_any_padding(pads: tuple[int, ...], stride: int, dilation: int) -> None:
    x, w = normal(2, 3, 7, 8), normal(4, 3, 3, 2)

    got = op("Conv", x, w, pads=pads, strides=[stride] * 2, dilations=[dilation] * 2)

    np.testing.assert_allclose(got, _convolved(x, w, pads, stride, dilation), atol=2e-5)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_same_padding_puts_the_odd_one_where_it_says(auto_pad: str) -> None:
    x, w = normal(1, 1, 5, 5), normal(1, 1, 2, 2)
    pads = (0, 0, 1, 1) if auto_pad == "SAME_UPPER" else (1, 1, 0, 0)

    got = op("Conv", x, w, auto_pad=auto_pad)

    np.testing.assert_allclose(got, _convolved(x, w, pads, 1, 1), atol=1e-5)


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("include", [0, 1])
def test_average_pool_counts_what_it_says(ceil_mode: int, include: int) -> None:
    x = normal(1, 2, 6, 6)

    got = op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 1],
             ceil_mode=ceil_mode, count_include_pad=include)  # fmt: skip

    size = [4, 4] if ceil_mode else [3, 3]
    want = np.zeros((1, 2, *size))
    for i in range(size[0]):
        for j in range(size[1]):
            rows, columns = range(2 * i - 1, 2 * i + 2), range(2 * j - 1, 2 * j + 2)
            inside = [(r, c) for r in rows for c in columns if 0 <= r < 6 and 0 <= c < 6]
            padded = [(r, c) for r in rows for c in columns if -1 <= r < 6 and -1 <= c < 7]
            total = sum(x[0, :, r, c] for r, c in inside)
            want[0, :, i, j] = total / len(padded if include else inside)
    got_size = list(got.shape[2:])
    assert got_size == [min(s, g) for s, g in zip(size, got_size, strict=True)]
    np.testing.assert_allclose(got, want[:, :, : got_size[0], : got_size[1]], atol=1e-6)


def test_max_pool_places_count_in_the_unpadded_input() -> None:
    x = normal(2, 2, 5, 6)

    values, places = op("MaxPool", x, outputs=2, kernel_shape=[3, 2], pads=[1, 0, 1, 1],
                        strides=[2, 2])  # fmt: skip

    np.testing.assert_array_equal(x.reshape(-1)[places], values)


def test_lstm_with_lengths_is_torchs_on_each_sequence() -> None:
    size, hidden = 3, 4
    cell = torch.nn.LSTM(size, hidden, bidirectional=True)
    x, lengths = normal(5, 2, size), np.array([5, 3], np.int32)
    # torch's gates are i f g o, ONNX's i o f c.
    order = [np.arange(hidden) + hidden * gate for gate in (0, 3, 1, 2)]
    rows = np.concatenate(order)
    parts = {n: p.detach().numpy()[rows] for n, p in cell.named_parameters()}
    w = np.stack([parts["weight_ih_l0"], parts["weight_ih_l0_reverse"]])
    r = np.stack([parts["weight_hh_l0"], parts["weight_hh_l0_reverse"]])
    bias = np.stack([
        np.concatenate([parts[f"bias_ih_l0{s}"], parts[f"bias_hh_l0{s}"]]) for s in ("", "_reverse")
    ])  # fmt: skip

    y, last, state = op("LSTM", x, w, r, bias, lengths, outputs=3, opset=14,
                        hidden_size=hidden, direction="bidirectional")  # fmt: skip

    for entry, length in enumerate(lengths):
        with torch.no_grad():
            want, (h, c) = cell(torch.from_numpy(x[:length, entry : entry + 1]))
        got = y[:length, :, entry].reshape(length, -1)
        np.testing.assert_allclose(got, want[:, 0], atol=1e-6)
        np.testing.assert_allclose(last[:, entry], h[:, 0], atol=1e-6)
        np.testing.assert_allclose(state[:, entry], c[:, 0], atol=1e-6)
        assert not y[length:, :, entry].any()


@pytest.mark.parametrize("count", [1, 3])
def test_gru_is_torchs(count: int) -> None:
    cell = torch.nn.GRU(3, 4)
    x = normal(count, 2, 3)
    rows = np.concatenate([np.arange(4) + 4 * gate for gate in (1, 0, 2)])  # r z n -> z r h
    p = {n: v.detach().numpy()[rows] for n, v in cell.named_parameters()}
    bias = np.concatenate([p["bias_ih_l0"], p["bias_hh_l0"]])[None]

    y, last = op("GRU", x, p["weight_ih_l0"][None], p["weight_hh_l0"][None], bias, outputs=2,
                 opset=14, hidden_size=4, linear_before_reset=1)  # fmt: skip

    with torch.no_grad():
        want, h = cell(torch.from_numpy(x))
    np.testing.assert_allclose(y[:, 0], want, atol=1e-6)
    np.testing.assert_allclose(last, h, atol=1e-6)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_pad_modes_are_numpys(mode: str) -> None:
    x = normal(3, 5)
    pads = np.array([2, 7, 1, 9])

    got = op("Pad", x, pads, mode=mode, opset=19)

    np.testing.assert_array_equal(got, np.pad(x, ((2, 1), (7, 9)), mode=mode))


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_resize_of_a_line_keeps_the_line(mode: str) -> None:
    x = np.arange(10, dtype=np.float32).reshape(1, 1, 10)
    scales = np.array([1, 1, 1.7], np.float32)
    b = Builder(opset=19)
    name = b.input("x", x.shape)
    # Of the cubics, only a = -0.5 reproduces lines.
    y = b.op("Resize", name, "", b.constant(scales, np.float32), mode=mode, cubic_coeff_a=-0.5)

    (got,) = run(b.model(y), x)

    places = (np.arange(17) + 0.5) / np.float64(np.float32(1.7)) - 0.5
    inside = (places > 1) & (places < 8)
    np.testing.assert_allclose(got[0, 0, inside], places[inside], atol=1e-5)


def test_antialiased_halving_averages() -> None:
    x = normal(1, 1, 4, 8)

    got = _resized(x, [2, 4], mode="linear", antialias=1)

    # A tent of radius 2 at the midpoint of each pair: weights 1/8 3/8 3/8 1/8, edges renormalised.
    def halved(rows: np.ndarray) -> np.ndarray:
        wide = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
        taps = np.array([1, 3, 3, 1]) / 8
        return np.stack([wide[:, 2 * i : 2 * i + 4] @ taps for i in range(rows.shape[1] // 2)], 1)

    want = halved(halved(x[0, 0]).T).T
    np.testing.assert_allclose(got[0, 0], want, atol=1e-6)


def _resized(x: np.ndarray, size: list[int], **attributes: Any) -> np.ndarray:
    b = Builder(opset=19)
    name = b.input("x", x.shape)
    sizes = b.constant(np.array([*x.shape[:2], *size]), np.int64)
    return run(b.model(b.op("Resize", name, "", "", sizes, **attributes)), x)[0]


def test_scatter_nd_adds_at_equal_places() -> None:
    x, updates = normal(4, 3), normal(3, 3)
    index = np.array([[1], [1], [-1]])
    want = x.copy()
    np.add.at(want, index[:, 0], updates)

    got = op("ScatterND", x, index, updates, reduction="add")

    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_top_k_of_equal_values_takes_the_first() -> None:
    x = np.array([[1, 3, 3, 2, 3]], np.float32)

    values, index = op("TopK", x, np.array([3]), outputs=2)

    np.testing.assert_array_equal(values, [[3, 3, 3]])
    np.testing.assert_array_equal(index, [[1, 2, 4]])


def test_attention_of_grouped_heads_is_its_formula() -> None:
    q, k, v = normal(1, 4, 2, 8), normal(1, 2, 5, 8), normal(1, 2, 5, 3)

    got = op("Attention", q, k, v, opset=23)

    keys, values = np.repeat(k, 2, 1), np.repeat(v, 2, 1)
    scores = np.exp(q @ keys.swapaxes(2, 3) / np.sqrt(8))
    want = scores / scores.sum(-1, keepdims=True) @ values
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_operators_beyond_the_suite() -> None:
    x = normal(2, 3, 4, 5)
    rois = np.array([[0, 0, 0, 4, 3], [1, 1, 1, 2, 2]], np.float32)

    pooled = op("GlobalLpPool", x, p=2)
    np.testing.assert_allclose(pooled[:, :, 0, 0], np.sqrt((x**2).sum((2, 3))), rtol=1e-5)

    boxes = op("MaxRoiPool", x, rois, pooled_shape=[2, 1])
    np.testing.assert_array_equal(boxes[0, :, 0, 0], x[0, :, :2].max((1, 2)))
    np.testing.assert_array_equal(boxes[1, :, 1, 0], x[1, :, 2:3, 1:3].max((1, 2)))


@pytest.mark.parametrize("kind", ["RandomNormal", "RandomUniform"])
def test_a_seed_repeats_the_draw(kind: str) -> None:
    first = op(kind, shape=[500], seed=3.0)

    np.testing.assert_array_equal(first, op(kind, shape=[500], seed=3.0))
    assert (first != op(kind, shape=[500], seed=4.0)).any()
    assert abs(float(first.mean()) - (0.5 if kind == "RandomUniform" else 0.0)) < 0.2


def test_multinomial_draws_the_likely_class() -> None:
    logits = np.array([[-50.0, 0.0, -50.0]], np.float32)

    np.testing.assert_array_equal(op("Multinomial", logits, sample_size=4, seed=1.0), [[1] * 4])


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "uint16", "int4"])
def test_cast_there_and_back(dtype: str) -> None:
    x = np.array([0.0, 1.0, 2.0, 3.0], np.float32)
    b = Builder(opset=25)
    name = b.input("x", x.shape)
    there = b.op("Cast", name, to=to_onnx(dtype))

    (got,) = run(b.model(b.op("Cast", there, to=1)), x)

    np.testing.assert_array_equal(got, x)


def test_per_block_dequantisation_scales_each_block() -> None:
    x = RNG.integers(-128, 128, (2, 6)).astype(np.int8)
    scale = np.abs(normal(2, 2)) + 0.1

    got = op("DequantizeLinear", x, scale, axis=1, block_size=3, opset=21)

    np.testing.assert_allclose(got, x * np.repeat(scale, 3, 1), rtol=1e-6)
