"""Runs in the environment `tensorflow`: small models of our own, and TensorFlow's own answers.

    python -I tensorflow_models.py FOLDER [NAME ...]

Seeded random weights, no data from anywhere, Apache-2.0 as this repository. Each model is
FOLDER/NAME (a folder, .keras or .tflite), its input and TensorFlow's own output in NAME.npz.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

L = tf.keras.layers
SEED = 20261122


def cnn() -> Any:
    """Convolutions of every kind a phone model has: plain, depthwise, residual, squeeze and excite,
    two branches joined, pools, padding, batch normalisation.
    """
    x = entry = L.Input((32, 32, 3), name="image")
    x = L.ZeroPadding2D(1)(x)
    x = L.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    for filters in (8, 16):
        skip = x if filters == x.shape[-1] else L.Conv2D(filters, 1)(x)
        y = L.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        y = L.Activation("relu")(L.BatchNormalization()(y))
        scale = L.GlobalAveragePooling2D(keepdims=True)(y)
        scale = L.Conv2D(4, 1, activation="relu")(scale)
        y = L.Multiply()([y, L.Conv2D(y.shape[-1], 1, activation="sigmoid")(scale)])
        y = L.BatchNormalization()(L.Conv2D(filters, 1, use_bias=False)(y))
        x = L.Activation("relu")(L.Add()([skip, y]))
    branches = [L.Conv2D(8, 3, padding="same")(x), L.AveragePooling2D(3, 1, "same")(x)]
    x = L.LeakyReLU(negative_slope=0.1)(L.Concatenate()(branches))
    x = L.MaxPooling2D()(x)
    x = L.GlobalAveragePooling2D()(x)
    return tf.keras.Model(entry, L.Dense(10, activation="softmax", name="scores")(x))


class Positions(L.Layer):
    """Adds one learned vector for each place of the sequence."""

    def build(self, shape: Any) -> None:
        """One vector for each place."""
        self.table = self.add_weight(shape=shape[1:], initializer="normal", name="table")

    def call(self, x: Any) -> Any:
        """The sequence with its places added."""
        return x + self.table


def transformer() -> Any:
    """Token ids to class scores: embedding, two encoder blocks, mean, dense."""
    entry = L.Input((16,), dtype="int32", name="ids")
    x = Positions()(L.Embedding(100, 32)(entry))
    for _ in range(2):
        y = L.LayerNormalization(epsilon=1e-6)(x)
        x = L.Add()([x, L.MultiHeadAttention(4, 8)(y, y)])
        y = L.Dense(64, activation="gelu")(L.LayerNormalization(epsilon=1e-6)(x))
        x = L.Add()([x, L.Dense(32)(y)])
    return tf.keras.Model(entry, L.Dense(7)(L.GlobalAveragePooling1D()(x)))


def lively(model: Any) -> Any:
    """The model with batch statistics that are not 0 and 1, as after training."""
    rng = np.random.default_rng(SEED)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            size = layer.gamma.shape
            values = [rng.uniform(0.5, 1.5, size), rng.normal(0, 0.3, size)]
            values += [rng.normal(0, 0.3, size), rng.uniform(0.5, 1.5, size)]
            layer.set_weights([v.astype(np.float32) for v in values])
    return model


def sample(model: Any, batch: int) -> np.ndarray:
    """A seeded input."""
    rng = np.random.default_rng(SEED)
    shape = (batch, *model.inputs[0].shape[1:])
    if model.inputs[0].dtype == "int32":
        return rng.integers(0, 100, shape).astype(np.int32)
    return rng.standard_normal(shape).astype(np.float32)


def saved_model(folder: Path, name: str, model: Any) -> None:
    """A SavedModel, answered by its own signature."""
    model.export(str(folder / name), verbose=False)
    x = sample(model, 2)
    serve = tf.saved_model.load(str(folder / name)).signatures["serving_default"]
    (output,) = serve(tf.constant(x)).values()
    np.savez(folder / f"{name}.npz", x=x, y=output.numpy())


def keras(folder: Path, name: str, model: Any) -> None:
    """A Keras file, answered by Keras."""
    model.save(folder / f"{name}.keras")
    x = sample(model, 2)
    np.savez(folder / f"{name}.npz", x=x, y=model(x, training=False).numpy())


def tflite(folder: Path, name: str, model: Any, quantised: bool = False) -> None:
    """A TFLite file with a batch of 1, answered by TFLite's interpreter."""
    shape = (1, *model.inputs[0].shape[1:])
    spec = tf.TensorSpec(shape, model.inputs[0].dtype, name=model.inputs[0].name)
    with tempfile.TemporaryDirectory() as work:
        model.export(work, input_signature=[spec], verbose=False)
        made = _converted(work, shape, quantised)
    path = folder / f"{name}.tflite"
    path.write_bytes(made)
    interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    (given,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    x = sample(model, 1)
    if quantised:
        scale, zero = given["quantization"]
        x = np.clip(np.round(x / scale) + zero, -128, 127).astype(np.int8)
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    np.savez(folder / f"{name}.npz", x=x, y=interpreter.get_tensor(output["index"]))


def _converted(saved: str, shape: tuple[int, ...], quantised: bool) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    if quantised:
        rng = np.random.default_rng(SEED + 1)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [rng.standard_normal(shape).astype(np.float32)] for _ in range(32)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    made: bytes = converter.convert()
    return made


def signatures(folder: Path, name: str) -> None:
    """A SavedModel with two signatures, neither of them the usual one."""

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
        def double(self, x: Any) -> Any:
            return {"twice": x * 2.0}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
        def negate(self, x: Any) -> Any:
            return {"negative": -x}

    module = Two()
    tf.saved_model.save(
        module, str(folder / name), {"double": module.double, "negate": module.negate}
    )
    x = np.asarray([[1, 2, 3]], np.float32)
    np.savez(folder / f"{name}.npz", x=x, y=-x)


def reading(folder: Path, name: str) -> None:
    """A SavedModel that reads a file when it runs: it has to be refused."""

    class Reader(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="path")])
        def read(self, path: Any) -> Any:
            return {"content": tf.io.read_file(path)}

    module = Reader()
    tf.saved_model.save(module, str(folder / name), {"serving_default": module.read})


def phone(kind: str) -> Any:
    """A published architecture of Keras, without its published weights."""
    return getattr(tf.keras.applications, kind)(weights=None, input_shape=(96, 96, 3))


MAKERS: dict[str, Callable[[Path, str], None]] = {
    "cnn": lambda f, n: saved_model(f, n, lively(cnn())),
    "transformer": lambda f, n: saved_model(f, n, transformer()),
    "mobilenet": lambda f, n: saved_model(f, n, lively(phone("MobileNetV3Small"))),
    "efficientnet": lambda f, n: saved_model(f, n, lively(phone("EfficientNetB0"))),
    "cnn-keras": lambda f, n: keras(f, n, lively(cnn())),
    "cnn-lite": lambda f, n: tflite(f, n, lively(cnn())),
    "transformer-lite": lambda f, n: tflite(f, n, transformer()),
    "cnn-int8": lambda f, n: tflite(f, n, lively(cnn()), quantised=True),
    "signatures": signatures,
    "reading": reading,
}


def main(argv: list[str]) -> int:
    """Make the named models, or all."""
    folder = Path(argv[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name in argv[1:] or MAKERS:
        tf.keras.utils.set_random_seed(SEED)
        MAKERS[name](folder, name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
