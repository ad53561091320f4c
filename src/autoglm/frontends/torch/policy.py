"""What an archive's contents may do when torch opens it: compute on tensors, and nothing else.

torch.export.load resolves operator names by attribute access, evaluates sizes with sympy,
imports enum classes by name, and unpickles example inputs and custom objects. Every one of those
doors is checked here, on the JSON and the opcodes, before torch sees the file.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from autoglm.errors import ModelError, ModelSecurityError
from autoglm.frontends import shown
from autoglm.frontends.torch.archive import Archive

_SPACES = "aten|prims|prim|torchvision|quantized_decomposed"
_HIGHER = [
    "cond",
    "while_loop",
    "scan",
    "associative_scan",
    "map_impl",
    "wrap_with_set_grad_enabled",
    "wrap_with_autocast",
]
_TARGET = re.compile(
    rf"torch\.ops\.(?:{_SPACES})\.(?!from_file)[a-zA-Z0-9_]+(?:\.[a-zA-Z0-9_]+)?"
    rf"|torch\.ops\.higher_order\.(?:{'|'.join(_HIGHER)})"
    r"|torch\.sym_(?:float|int|ite|max|min|not|sum)|torch\._sym_sqrt"
    r"|_operator\.(?:add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor"
    r"|not_|invert|lshift|rshift|getitem|index|pos)"
    r"|math\.(?:ceil|floor|trunc|sqrt|pow|log2|exp)"
)
# What sympy's own srepr, which torch writes, consists of.
_WORDS = frozenset(
    [
        "Symbol",
        "Integer",
        "Float",
        "Rational",
        "Add",
        "Mul",
        "Pow",
        "Max",
        "Min",
        "Equality",
        "Unequality",
        "StrictLessThan",
        "LessThan",
        "StrictGreaterThan",
        "GreaterThan",
        "Piecewise",
        "ExprCondPair",
        "And",
        "Or",
        "Not",
        "BooleanTrue",
        "BooleanFalse",
        "true",
        "false",
        "True",
        "False",
        "floor",
        "ceiling",
        "oo",
        "nan",
        "int_oo",
        "FloorDiv",
        "ModularIndexing",
        "Where",
        "PythonMod",
        "Mod",
        "CleanDiv",
        "CeilToInt",
        "FloorToInt",
        "CeilDiv",
        "LShift",
        "RShift",
        "PowByNatural",
        "FloatPow",
        "FloatTrueDiv",
        "IntTrueDiv",
        "TruncToFloat",
        "TruncToInt",
        "RoundToInt",
        "RoundDecimal",
        "ToFloat",
        "Identity",
        "IsNonOverlappingAndDenseIndicator",
        "positive",
        "negative",
        "nonnegative",
        "nonpositive",
        "integer",
        "real",
        "finite",
        "infinite",
        "zero",
        "nonzero",
        "even",
        "odd",
        "prime",
        "precision",
        "evaluate",
        "commutative",
    ]
)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SYMBOL = re.compile(r"[a-zA-Z]{1,20}\d{1,9}")
_QUOTED = re.compile(
    r"\b(Symbol|Integer|Float)\('(?:[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*"
    r"|[+-]?[0-9]{1,40}(?:\.[0-9]{0,40})?(?:e[+-]?\d{1,3})?)'"
)
_ARITHMETIC = re.compile(r"(?:[A-Za-z0-9_ ()+\-*/%,<>=&|~!]|(?<=\d)\.(?=\d))*")
_GLOBALS = frozenset(
    {
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch.serialization _get_layout",
        "torch device",
        "torch Size",
        "collections OrderedDict",
    }
)
_STORAGE = re.compile(r"torch(?:\.storage)? [A-Z][A-Za-z0-9]*Storage")
_CODE_DOORS = re.compile(
    r"\bfrom_file\b|torch\.classes|\bprim\.PythonOp\b|\btorch\.save\b|\bopen\("
)


def check_pt2(archive: Archive) -> None:
    """Refuse a .pt2 that would do more than describe tensors and operators."""
    for name in archive.names:
        if name.startswith(("data/aotinductor/", "data/executorch/")):
            raise _refused(archive, "compiled native code", name)
        if name.startswith("data/") and name.endswith(".pt") and "sample_inputs" not in name:
            raise _refused(archive, "pickled weights", name)
        if name.startswith("data/sample_inputs/"):
            _check_pickle(archive, name)
        elif name.startswith("models/"):
            _check_program(archive, name)
        elif name.endswith("_config.json"):
            _check_payloads(archive, name)


def check_torchscript(archive: Archive) -> None:
    """Refuse TorchScript code that reads files or uses custom native classes."""
    for name in archive.names:
        if name.startswith("code/") and name.endswith(".py"):
            found = _CODE_DOORS.search(archive.read(name).decode("utf-8", "replace"))
            if found:
                raise _refused(archive, f"a call of {found[0]}", name)


def _refused(archive: Archive, what: str, where: str) -> ModelSecurityError:
    return ModelSecurityError(
        "{path} holds {what} in {where}, which could run code of its own.",
        hint="Export the model again with plain tensors and operators, or export it to ONNX.",
        path=archive.path,
        what=what,
        where=shown(where),
    )


def _json(archive: Archive, name: str) -> Any:
    try:
        return json.loads(archive.read(name))
    except (ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise ModelError(
            "{path}: record {name} is not valid JSON: {reason}.",
            hint="The file is damaged: save it again.",
            path=archive.path,
            name=shown(name),
            reason=str(error)[:200],
        ) from error


def _check_payloads(archive: Archive, name: str) -> None:
    config = _json(archive, name)
    entries = config.get("config") if isinstance(config, dict) else None
    if not isinstance(entries, dict):
        raise ModelError("{path}: record {name} lists no payloads.", path=archive.path, name=name)
    for key, entry in entries.items():
        path = str(entry.get("path_name")) if isinstance(entry, dict) else ""
        if not isinstance(entry, dict) or entry.get("use_pickle") is not False:
            raise _refused(archive, f"the pickled object {shown(key)}", name)
        if not re.fullmatch(r"(?:weight|tensor)_\d+", path):
            raise _refused(archive, f"the custom object {shown(path)}", name)


def _check_program(archive: Archive, name: str) -> None:
    for key, value in _pairs(_json(archive, name)):
        if key == "target" and isinstance(value, str):
            if value and _TARGET.fullmatch(value) is None:
                raise _refused(archive, f"the call target {shown(value)}", name)
        elif key in ("as_custom_obj", "as_operator", "__enum__") and value is not None:
            raise _refused(archive, f"a custom object ({key})", name)
        elif key == "expr_str" and not safe_expression(value):
            raise _refused(archive, f"the size expression {shown(value)}", name)
        elif key == "range_constraints" and isinstance(value, dict):
            for symbol in value:
                if not safe_expression(symbol):
                    raise _refused(archive, f"the size expression {shown(symbol)}", name)
        elif key in ("in_spec", "out_spec") and isinstance(value, str) and "__enum__" in value:
            raise _refused(archive, "an enum class by name", name)


def safe_expression(text: object) -> bool:
    """Whether sympy may evaluate this: symbols, numbers, arithmetic, known functions only."""
    if not isinstance(text, str) or len(text) > 10_000:
        return False
    bare = _QUOTED.sub(r"\1(0", text)
    if _ARITHMETIC.fullmatch(bare) is None or "**" in bare:
        return False
    return all(w in _WORDS or _SYMBOL.fullmatch(w) for w in _WORD.findall(bare))


def _pairs(tree: Any) -> Iterator[tuple[str, Any]]:
    pending = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _check_pickle(archive: Archive, name: str) -> None:
    # Example inputs are a torch.save of their own; torch falls back to plain unpickling when its
    # restricted reader refuses them, so only what that reader surely takes is let through.
    data = archive.read(name)
    if not data:
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as inner:
            pickles = [r for r in inner.infolist() if r.filename.endswith(".pkl")]
            if sum(r.file_size for r in inner.infolist()) > len(data) * 100 + (16 << 20):
                raise _refused(archive, "a zip bomb", name)
            texts = [inner.read(r) for r in pickles]
        found = next((g for text in texts for g in strange_globals(text)), None)
        restricted = _loads_restricted(data)
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
        raise _refused(archive, f"a damaged pickle ({str(error)[:80]})", name) from error
    if found is not None:
        raise _refused(archive, f"a pickle of {shown(found)}", name)
    if not restricted:
        raise _refused(archive, "example inputs that are not plain tensors", name)


def strange_globals(pickle: bytes) -> Iterator[str]:
    """Names a pickle would import beyond those of a plain tensor; the pickle is never run."""
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name == "GLOBAL":
            text = str(argument)
            if text not in _GLOBALS and _STORAGE.fullmatch(text) is None:
                yield text
        elif opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX") or (
            opcode.name.startswith("EXT")
        ):
            yield opcode.name


def _loads_restricted(data: bytes) -> bool:
    import pickle

    import torch

    try:
        torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, AttributeError):
        return False
    return True
