"""Every hostile source gives one clear error of the right kind, quickly, and runs nothing."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
from frontends.hostile import HOSTILE

from autoglm.errors import AutoGLMError
from autoglm.frontends.huggingface import HuggingFace
from autoglm.frontends.onnx import Onnx
from autoglm.frontends.torch import Torch
from autoglm.spec import Frontend


def frontend(path: Path) -> Frontend:
    found = [f for f in (HuggingFace(), Onnx(), Torch()) if f.detect(path)]
    assert found, f"no frontend takes {path}"
    return found[0]


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_source_gives_one_clear_error(name: str, tmp_path: Path) -> None:
    case = HOSTILE[name]
    path = case.build(tmp_path)
    before, started = peak_bytes(), time.monotonic()

    with pytest.raises(AutoGLMError) as caught:
        frontend(path).load(path)

    error = caught.value
    assert type(error) is case.error, f"{type(error).__name__}: {error}"
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 700
    assert not (tmp_path / "pwned").exists(), "the source ran code"
    assert time.monotonic() - started < 20
    assert peak_bytes() - before < 1 << 30


def test_errors_about_broken_files_say_what_to_do(tmp_path: Path) -> None:
    for name in ("empty_file", "html_page", "lfs_pointer", "truncated", "future_opset", "a_cycle"):
        folder = tmp_path / name
        folder.mkdir()
        path = HOSTILE[name].build(folder)

        with pytest.raises(AutoGLMError) as caught:
            Onnx().load(path)

        assert caught.value.hint, name
