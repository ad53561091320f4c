"""onnx's whole backend suite on `AutoBackend`, judged by onnx's own runner, with the engines that
carried it.
"""

from __future__ import annotations

import glob
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm.testing.cases import Case, is_random

if TYPE_CHECKING:
    import onnx

KINDS = ("node", "real", "simple", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case: `pass`, `refused` (an error) or `wrong` (an answer that differs), and who ran
    it.
    """

    status: str
    reason: str = ""
    engines: tuple[str, ...] = ()


def suite_cases(kinds: tuple[str, ...] = KINDS) -> Iterator[Case]:
    """Every CPU case of the installed onnx."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in kinds:
            for found in load_model_tests(kind=kind):
                model, light = _model(found)
                data = tuple(_data(found, model, light))
                text = model.SerializeToString()
                drawn = is_random(model) and not _is_determined(model, data)
                judge = "shapes" if drawn else "values"
                yield Case(f"{kind}/{found.name}", text, data, found.rtol, found.atol, judge)


def _is_determined(model: onnx.ModelProto, data: Sequence[tuple[Any, Any]]) -> bool:
    """Whether it is one Dropout, in training, that drops nothing: its ratio is 0."""
    names = [i.name for i in model.graph.input]
    nodes = list(model.graph.node)
    if len(nodes) != 1 or nodes[0].op_type != "Dropout" or nodes[0].input[1] not in names:
        return False
    place = names.index(nodes[0].input[1])
    return all(float(inputs[place]) == 0.0 for inputs, _ in data)


def _model(found: Any) -> tuple[onnx.ModelProto, Path | None]:
    import onnx
    import onnx.backend.test

    if found.model is not None:
        return found.model, None
    if found.url and "/data/light/" in found.url:
        folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
        path = folder / Path(found.url).name
        return onnx.load(path), path
    return onnx.load(Path(found.model_dir) / "model.onnx"), None


def _data(found: Any, model: onnx.ModelProto, light: Path | None) -> Iterator[tuple[Any, Any]]:
    if found.data_sets is not None:
        for inputs, outputs in found.data_sets:
            yield tuple(map(_array, inputs)), tuple(map(_array, outputs))
    elif light is not None:
        yield _dummy(found, model), (_read(light.with_name(f"{light.stem}_output_0.pb"), None),)
    else:
        for folder in sorted(glob.glob(f"{found.model_dir}/test_data_set_*")):
            yield (
                _folder(Path(folder), "input", model.graph.input),
                _folder(Path(folder), "output", model.graph.output),
            )


def _array(value: Any) -> Any:
    import onnx

    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _dummy(found: Any, model: onnx.ModelProto) -> tuple[Any, ...]:
    from onnx.backend.test.runner import Runner

    weights = {i.name for i in model.graph.initializer}
    feeds = [i for i in model.graph.input if i.name not in weights]
    return tuple(
        Runner.generate_dummy_data(i, seed=0, name=found.model_name, random=False) for i in feeds
    )


def _folder(folder: Path, side: str, infos: Any) -> tuple[Any, ...]:
    count = len(list(folder.glob(f"{side}_*.pb")))
    return tuple(_read(folder / f"{side}_{i}.pb", infos[i].type) for i in range(count))


def _read(path: Path, kind: Any) -> Any:
    import onnx
    from onnx import numpy_helper

    text = path.read_bytes()
    which = "tensor_type" if kind is None else kind.WhichOneof("value")
    if which == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(text))
    if which == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(text))
    return numpy_helper.to_array(onnx.TensorProto.FromString(text))


def runner() -> Callable[[Case], Outcome]:
    """What a worker answers with, in the child."""
    warnings.simplefilter("ignore")
    return run_case


def run_case(case: Case) -> Outcome:
    """One case through `AutoBackend`."""
    from onnx.backend.test.runner import Runner

    from autoglm.testing.onnx_backend import AutoBackend

    engines: tuple[str, ...] = ()
    try:
        rep = AutoBackend.prepare(case.proto(), "CPU")
        engines = rep.engines
        for inputs, outputs in case.data:
            Runner.assert_similar_outputs(
                list(outputs), list(rep.run(list(inputs))), rtol=case.rtol, atol=case.atol
            )
    except AssertionError as error:
        return Outcome("wrong", " ".join(str(error).split())[:300], engines)
    except Exception as error:  # an engine may raise anything; that is the finding
        return Outcome("refused", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    rep.session.close()
    return Outcome("pass", "", engines)
