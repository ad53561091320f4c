"""The feeds that calibrate, prove and time a model: the user's own, else seeded random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.errors import AutoGLMError, FileMissingError
from autoglm.messages import tr
from autoglm.runtime.candidate import Samplings
from autoglm.spec import Feeds, TensorInfo
from autoglm.tensor.disk import load_arrays, random_feeds

if TYPE_CHECKING:
    from autoglm.config import AdaptConfig

_PROOF_SEEDS = (101, 202)
_CALIBRATION_SEEDS = tuple(range(301, 309))
# Sizes of open dimensions in the two feeds: the first axis is most often the batch.
_BATCHES, _LENGTHS = (1, 3), (32, 17)


def make_samplings(
    inputs: tuple[TensorInfo, ...],
    config: AdaptConfig,
    runs: Callable[[Feeds], object] | None = None,
) -> Samplings:
    """`inputs` of the config proves and times, `calibration` calibrates; a fourth of it is held
    out. Without data, open dimensions take two sizes above 1: at size 1 a softmax is constant and
    hides every error before it. `runs` tries such a feed: where it fails, they take 1.
    """
    notes: list[str] = []
    given = _feeds(config.inputs, inputs)
    calibration = _feeds(config.calibration, inputs)
    if not given and len(calibration) > 3:
        # What calibrated the model must not also prove it.
        given = calibration[::4]
        calibration = [f for i, f in enumerate(calibration) if i % 4]
    sizes = _sizes(inputs)
    if sizes and runs and not (given and calibration) and not _accepts(inputs, runs):
        sizes = dict.fromkeys(sizes, (1, 1))
    if sizes and not given:
        shown = tr(" and at ").join(
            ", ".join(f"{name}={size[turn]}" for name, size in sizes.items()) for turn in (0, 1)
        )
        notes.append(
            tr(
                "proved and timed on random data at {shown}: give --inputs for your own",
                shown=shown,
            )
        )
    if not calibration and config.precision in ("int8", "auto"):
        notes.append(
            tr("int8 was calibrated on seeded random data: give --calibration for accuracy")
        )
        calibration = [random_feeds(inputs, s, _dims(sizes, 0)) for s in _CALIBRATION_SEEDS]
    proof = given or [
        random_feeds(inputs, seed, _dims(sizes, turn)) for turn, seed in enumerate(_PROOF_SEEDS)
    ]
    return Samplings(tuple(calibration), tuple(proof), tuple(notes))


def _sizes(inputs: Sequence[TensorInfo]) -> dict[str, tuple[int, int]]:
    """Named open dimension -> its size in the first and in the second feed."""
    found: dict[str, tuple[int, int]] = {}
    for info in inputs:
        for axis, dim in enumerate(info.shape or ()):
            if isinstance(dim, str) and dim:
                found.setdefault(dim, _BATCHES if axis == 0 else _LENGTHS)
    return found


def _dims(sizes: Mapping[str, tuple[int, int]], turn: int) -> dict[str, int]:
    return {name: size[turn] for name, size in sizes.items()}


def _accepts(inputs: tuple[TensorInfo, ...], runs: Callable[[Feeds], object]) -> bool:
    try:
        for turn in (0, 1):
            runs(random_feeds(inputs, turn, _dims(_sizes(inputs), turn)))
    except AutoGLMError:
        return False
    return True


def _feeds(path: str, inputs: Sequence[TensorInfo]) -> list[Feeds]:
    """One feed a file: a file, or every file of a folder in name order."""
    if not path:
        return []
    place = Path(path)
    if not place.exists():
        raise FileMissingError("No such file or folder: {path}.", path=path)
    files = sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else [place]
    return [load_arrays(file, inputs) for file in files]
