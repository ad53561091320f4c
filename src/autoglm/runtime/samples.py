"""The feeds that calibrate, prove and time a model: the user's own, else seeded random ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autoglm.errors import FileMissingError
from autoglm.runtime.candidate import Samplings
from autoglm.spec import Feeds, TensorInfo
from autoglm.tensor.disk import load_arrays, random_feeds

if TYPE_CHECKING:
    from autoglm.config import AdaptConfig

_PROOF_SEEDS = (101, 202)
_CALIBRATION_SEEDS = tuple(range(301, 309))


def make_samplings(inputs: tuple[TensorInfo, ...], config: AdaptConfig) -> Samplings:
    """`inputs` of the config proves and times, `calibration` calibrates; a fourth of it is held
    out.
    """
    notes: list[str] = []
    given = _feeds(config.inputs)
    calibration = _feeds(config.calibration)
    if not calibration:
        if config.precision in ("int8", "auto"):
            notes.append(
                "int8 was calibrated on seeded random data: give --calibration for accuracy"
            )
            calibration = [random_feeds(inputs, seed) for seed in _CALIBRATION_SEEDS]
    elif not given and len(calibration) > 3:
        # What calibrated the model must not also prove it.
        given = calibration[::4]
        calibration = [f for i, f in enumerate(calibration) if i % 4]
    proof = given or [random_feeds(inputs, seed) for seed in _PROOF_SEEDS]
    return Samplings(tuple(calibration), tuple(proof), tuple(notes))


def _feeds(path: str) -> list[Feeds]:
    """One feed a file: a file, or every file of a folder in name order."""
    if not path:
        return []
    place = Path(path)
    if not place.exists():
        raise FileMissingError("No such file or folder: {path}.", path=path)
    files = sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else [place]
    return [load_arrays(file) for file in files]
