"""Break each rewrite rule on purpose, and show that a test notices.

    python benchmarks/mutation.py            # every mutant; exit status 1 if one survives
    python benchmarks/mutation.py gelu norm  # those whose name contains one of these words
    python benchmarks/mutation.py --jobs 4

A mutant is one edit of one source file, made in a temporary copy of `src`; the named tests then run
against the copy. "killed" means that they failed. Other rooms add their mutants to `MUTANTS`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 240
PROOF = "tests/rewrite/test_certificate.py::test_proving_a_rule_again_agrees_with_its_certificate"
MISSES = "tests/rewrite/test_certificate.py::test_what_only_looks_like_the_pattern_is_left_alone"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit: `old` must occur exactly once in `file` (below src/autoglm)."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def proof(rule: str, file: str, old: str, new: str) -> Mutant:
    """A mutant that the rule's own certificate must notice."""
    return Mutant(rule, f"rewrite/{file}.py", old, new, (f"{PROOF}[{rule}]",))


def near_miss(rule: str, file: str, old: str, new: str) -> Mutant:
    """A mutant that matches too much; the list of near misses must notice."""
    return Mutant(f"{rule} (too eager)", f"rewrite/{file}.py", old, new, (MISSES,))


def whole(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    """A mutant that whole test files must notice."""
    paths = tuple(f"tests/rewrite/test_{t}.py" for t in tests)
    return Mutant(name, f"rewrite/{file}.py", old, new, paths)


FUSE = [
    proof("gelu-erf", "fuse", "return op.Gelu(x)\n", 'return op.Gelu(x, approximate="tanh")\n'),
    near_miss("gelu-erf", "fuse", "is_scalar(root, wanted) and is_scalar(one", "is_scalar(one"),
    proof("gelu-tanh", "fuse", 'return op.Gelu(x, approximate="tanh")', "return op.Gelu(x)"),
    proof("swish", "fuse", "return op.Swish(x)", "return op.Swish(x, alpha=1.01)"),
    proof("hardswish", "fuse", "return op.HardSwish(x)", "return op.HardSigmoid(x)"),
    near_miss("hardswish", "fuse", "abs(alpha - 1 / 6) > 1e-8", "abs(alpha - 1 / 6) > 1"),
    proof("layer-norm", "fuse", "scale, bias, axis=-1, epsilon=scalar(eps))", "scale, bias, axis=-1)"),
    near_miss("layer-norm", "fuse", "all(_last_vector(v, x) for v in vectors)", "vectors"),
    near_miss("layer-norm axis", "fuse", "axes in ([-1], [last]) and last >= 0", "last >= 0"),
    proof("rms-norm", "fuse", "scale, axis=-1, epsilon=scalar(eps))\n\n\nclass Strip", "scale, axis=0)\n\n\nclass Strip"),
    proof("softmax-guard", "fuse", 'return op.op("Softmax", x, **dict(node.attributes))', 'return op.op("LogSoftmax", x, **dict(node.attributes))'),
    near_miss("softmax-guard", "fuse", "if _open_rows(x) else", "if True else"),
]  # fmt: skip

CANCEL = [
    proof("transpose-transpose", "cancel", "[first[axis] for axis in second]", "[second[axis] for axis in first]"),
    proof("transpose-unary", "cancel", "**dict(node.attributes))\n        inner.shape", "alpha=0.01)\n        inner.shape"),
    proof("transpose-binary", "cancel", "inner = op.op(self.end, a, b)", "inner = op.op(self.end, b, a)"),
    proof("transpose-scalar", "cancel", 'sides = (x, c) if self.variant == "left" else (c, x)', "sides = (x, c)"),
    near_miss("transpose-scalar", "cancel", "if not perm or scalar(c) is None:", "if not perm:"),
    proof("cast-cast", "cancel", 'return op.op("Cast", x, **dict(node.attributes))', "return op.Identity(x)"),
    near_miss("cast-cast", "cancel", "if mergeable(*kinds) else", "if True else"),
    proof("reshape-reshape", "cancel", "shape = np.asarray(target_shape(outer), np.int64)", "shape = np.asarray([-1], np.int64)"),
    near_miss("reshape-reshape", "cancel", "wanted.count(-1) > 1 or 0 in wanted else", "wanted.count(-1) > 1 else"),
    proof("squeeze-unsqueeze", "cancel", "return op.Identity(x)\n\n\nCANCEL", "return op.Neg(x)\n\n\nCANCEL"),
    near_miss("squeeze-unsqueeze", "cancel", "or sorted(one) != sorted(two)", ""),
]  # fmt: skip

SINK = [
    proof("transpose-constant", "transpose", "full.transpose(np.argsort(perm))", "full.transpose(perm)"),
    near_miss("transpose-constant", "transpose", "if known.ndim <= len(perm) else", "if True else"),
    proof("transpose-scaled", "transpose", 'perm[node.attributes.get_int("axis", 1)]', 'node.attributes.get_int("axis", 1)'),
    proof("transpose-softmax", "transpose", 'perm[_node(y).attributes.get_int("axis", -1)]', '_node(y).attributes.get_int("axis", -1)'),
    proof("transpose-concat", "transpose", 'perm[node.attributes["axis"].as_int()]', 'node.attributes["axis"].as_int()'),
    near_miss("transpose-concat", "transpose", "if not perms[0] or any(p != perms[0] for p in perms):", "if not perms[0]:"),
    proof("transpose-pad", "transpose", "[:, np.argsort(perm)]", "[:, perm]"),
    proof("transpose-slice", "transpose", '_numbers(op, _from(axes, perm), "axes")', '_numbers(op, axes, "axes")'),
    proof("transpose-reduce", "transpose", "mine = sorted(_from(axes, perm))", "mine = sorted(axes)"),
    proof("transpose-gate", "transpose", "((source, inner) if plain is a else (inner, source))", "(source, inner)"),
    proof("reshape-transpose", "transpose", "[wanted[axis] for axis in perm]", "wanted"),
    near_miss("transpose-gate", "transpose", "len(moved.uses()) != 2 or", ""),
    near_miss("transpose-reshape", "transpose", "return long == sorted(long)", "return True"),
]  # fmt: skip

LINEAR = [
    proof("conv-batchnorm", "linear", "(bias - mean) * factor + shift", "bias * factor + shift"),
    Mutant("conv-batchnorm (epsilon)", "rewrite/linear.py", 'get_float("epsilon", 1e-5)', 'get_float("eps", 1e-5)', (f"{PROOF}[conv-batchnorm]",)),
    Mutant("conv-batchnorm (training)", "rewrite/linear.py", 'node.attributes.get_int("training_mode", 0) or len(node.outputs) != 1', "False", ("tests/rewrite/test_certificate.py",)),
    proof("conv-bias", "linear", "extra if bias is None else extra + bias.astype(np.float64)", "extra"),
    proof("conv-scale", "linear", "weight * columns, bias * factor)", "weight * columns, bias)"),
    proof("matmul-scale", "linear", "weight.astype(np.float64) * factor", "weight.astype(np.float64)"),
    near_miss("matmul-scale", "linear", "if factor is None or not np.isfinite(factor) or (rank", "if factor is None or (rank"),
    proof("attention-scale", "linear", "np.asarray(first * second)", "np.asarray(first)"),
    proof("matmul-add-gemm", "linear", "return op.Gemm(a, b, c)", "return op.Gemm(a, b, c, beta=0.5)"),
    near_miss("matmul-add-gemm", "linear", "if c.shape is None or len(c.shape) > 2:", "if c.shape is None:"),
    near_miss("matmul-add-gemm shape", "linear", "if size != 1 and not (size == whole and named):", "if False:"),
]  # fmt: skip

PASSES = [
    whole("fold growth", "fold", "made <= given + GROWTH_BYTES", "True", "fold"),
    whole("fold random", "fold", '"""\nFOLDABLE', 'RandomNormal DequantizeLinear\n"""\nFOLDABLE', "fold"),
    whole("fold outputs", "fold", "if any(v.is_graph_output() for v in node.outputs):\n            continue\n        arrays", "arrays", "fold", "prepare"),
    whole("shape slice start", "fold", 'node.attributes.get_int("start", 0) : end', "1 : end", "fold", "shapes"),
    whole("shape gather", "fold", "return [data[i] for i in indices]", "return data[: len(indices)]", "fold"),
    whole("shape copied symbol", "fold", "dim.value == entry else None", "True else None", "fold"),
    whole("shape -1 beside 0", "fold", "if fixed.count(-1) != 1 or 0 in fixed:", "if fixed.count(-1) != 1:", "fold"),
    whole("identity names", "clean", "if producer is None or producer.graph is not graph or source.is_graph_output():", "if producer is None:", "clean"),
    whole("dropout training", "clean", "return training is not None and not training.any()", "return True", "clean"),
    whole("no-op cast", "clean", "value.dtype == node.outputs[0].dtype", "True", "clean"),
    whole("no-op transpose", "clean", "perm is not None and perm == sorted(perm)", "perm is not None", "clean", "prepare"),
    whole("no-op pad", "clean", "pads is not None and not any(pads)", "pads is not None", "clean"),
    whole("no-op slice", "clean", "steps is not None and all(s == 1 for s in steps)", "True", "clean"),
    whole("no-op one", "clean", "bool((array == 1).all())", "True", "clean"),
    whole("no-op broadcast", "clean", "or not broadcasts_into(c, x)", "", "clean"),
    whole("no-op minus zero", "clean", "== sign).all())", "== sign).all() or True)", "clean"),
    whole("no-op clip", "clean", "not node.attributes and all(v is None for v in node.inputs[1:])", "True", "clean"),
    whole("share random", "clean", "or node.op_type in _RANDOM ", "", "clean", "fold"),
    whole("share attributes", "clean", "attributes.append((name, repr(value)))", "attributes.append((name, 0))", "clean"),
    whole("share sources", "clean", "dict.fromkeys((*sources(kept), *sources(node)))", "dict.fromkeys(sources(kept))", "clean"),
    whole("sources of fused nodes", "rule", 'node.metadata_props[SOURCE] = ",".join(union)', "pass", "prepare"),
    whole("uncertified rules", "prepare", "step.rule is None or name in proven", "True", "prepare"),
    whole("legalize unknown", "legalize", "if support(facts_of(node, opsets)).ok:", "if True:", "legalize"),
    whole("attribute defaults", "expand", "proto.attribute.append(default)", "pass", "legalize"),
]  # fmt: skip

PARTS = [
    proof("BatchNormalization-affine", "decompose", "return op.Add(op.Mul(centred, _columns(op, factor, size)), _columns(op, bias, size))", "return op.Mul(centred, _columns(op, factor, size))"),
    proof("InstanceNormalization-moments", "decompose", "op.Mul(centred, centred), axes, opset)", "op.Mul(x, x), axes, opset)"),
    proof("GlobalMaxPool-reduction", "decompose", 'else "ReduceMax"', 'else "ReduceMin"'),
    proof("GlobalAveragePool-reduction", "decompose", 'kind = "ReduceMean" if', 'kind = "ReduceSum" if'),
    proof("Gemm-matmul", "decompose", "c = op.Mul(c, number_like(op, node.inputs[0], beta))", "pass"),
    proof("Sum-pairs", "decompose", "for value in node.inputs[1:]:\n        total", "for value in node.inputs[2:]:\n        total"),
    proof("Mean-pairs", "decompose", "float(len(node.inputs))", "float(len(node.inputs) - 1)"),
    proof("Max-pairs", "decompose", '{"Sum": "Add", "Mean": "Add"}', '{"Sum": "Add", "Mean": "Add", "Max": "Min"}'),
    proof("Min-pairs", "decompose", '{"Sum": "Add", "Mean": "Add"}', '{"Sum": "Add", "Mean": "Add", "Min": "Max"}'),
    proof("SpaceToDepth-reshape", "decompose", "[0, 3, 5, 1, 2, 4]", "[0, 5, 3, 1, 2, 4]"),
    proof("DepthToSpace-reshape", "decompose", "perm = [0, 3, 4, 1, 5, 2] if depth_first", "perm = [0, 3, 4, 2, 5, 1] if depth_first"),
    proof("reshape", "decompose", 'int_vector(op, shape, "shape"))\n\n\n@decompose("Size")', 'int_vector(op, [-1], "shape"))\n\n\n@decompose("Size")'),
    proof("Size-product", "decompose", '"ReduceProd"', '"ReduceSum"'),
    proof("IsNaN-self-unequal", "decompose", "op.Not(op.Equal(node.inputs[0], node.inputs[0]))", "op.Equal(node.inputs[0], node.inputs[0])"),
    proof("IsInf-equal-infinity", "decompose", "math.inf if high else -math.inf", "math.inf"),
    proof("Neg-times-minus-one", "decompose", "number_like(op, node.inputs[0], -1)", "number_like(op, node.inputs[0], 1)"),
    proof("Sub-add-negative", "decompose", "op.Add(node.inputs[0], op.Neg(node.inputs[1])) if", "op.Add(node.inputs[0], node.inputs[1]) if"),
    proof("Reciprocal-one-over", "decompose", "op.Div(number_like(op, node.inputs[0], 1.0)", "op.Div(number_like(op, node.inputs[0], 2.0)"),
    proof("Tan-sine-over-cosine", "decompose", "op.Div(op.Sin(node.inputs[0]), op.Cos", "op.Mul(op.Sin(node.inputs[0]), op.Cos"),
    proof("Relu-max-zero", "decompose", "return op.Max(node.inputs[0], number_like(op, node.inputs[0], 0)) if", "return op.Min(node.inputs[0], number_like(op, node.inputs[0], 0)) if"),
    proof("Clip-min-max", "decompose", "y = op.Min(y, node.inputs[2])", "y = op.Max(y, node.inputs[2])"),
    proof("Greater-swapped", "decompose", "op.Less(node.inputs[1], node.inputs[0])", "op.Less(node.inputs[0], node.inputs[1])"),
    proof("CastLike-cast", "decompose", "target = node.inputs[1].dtype", "target = node.inputs[0].dtype"),
    proof("Pow-multiply", "decompose", "return op.Mul(op.Mul(x, x), x) if", "return op.Mul(x, x) if"),
    proof("Dropout-identity", "decompose", "return op.Identity(node.inputs[0])\n\n\ndef _axes_of", "return op.Neg(node.inputs[0])\n\n\ndef _axes_of"),
    proof("ReduceL1-reduce-sum", "decompose", '"ReduceSum", op.Abs(x)', '"ReduceSum", x'),
    proof("ReduceL2-reduce-sum", "decompose", 'op.Sqrt(total) if kind == "ReduceL2"', 'total if kind == "ReduceL2"'),
    proof("ReduceSumSquare-reduce-sum", "decompose", 'total = _reduce(op, "ReduceSum", op.Mul(x, x)', 'total = _reduce(op, "ReduceSum", op.Abs(x)'),
    proof("ReduceLogSum-reduce-sum", "decompose", 'op.Log(_reduce(op, "ReduceSum", x, axes, opset, keep)) if', '_reduce(op, "ReduceSum", x, axes, opset, keep) if'),
    proof("ReduceLogSumExp-reduce-sum", "decompose", "op.Add(op.Log(total), peak)", "op.Log(total)"),
    proof("ReduceMean-reduce-sum", "decompose", "op.Div(total, number_like(op, x, float(count)))", "total"),
    proof("Softmax-last-axis", "decompose", "return op.Transpose(y, perm=perm)\n", "return op.Identity(y)\n"),
    proof("LogSoftmax-last-axis", "decompose", "op.op(node.op_type, op.Transpose", 'op.op("Softmax", op.Transpose'),
    proof("one-dimension", "decompose_index", "[0, begin, 0, end]", "[0, end, 0, begin]"),
    proof("Split-slices", "decompose_index", "[e - s]", "[0]"),
    proof("ConstantOfShape-expand", "decompose_index", "array.reshape(())", "array.reshape(()) + 1"),
    proof("Tile-concat", "decompose_index", "op.Concat(*[y] * count, axis=axis)", "op.Concat(*[y] * count, axis=0)"),
    proof("OneHot-compare", "decompose_index", "op.Where(hit, on, off)", "op.Where(hit, off, on)"),
    proof("Trilu-mask", "decompose_index", "np.triu(ones, offset)", "np.triu(ones, offset + 1)"),
    proof("Mod-remainder", "decompose_index", "op.Where(wrong, op.Add(rest, b), rest)", "op.Identity(rest)"),
    proof("ArgMax-reversed", "decompose_index", "- 1\n    bounds", "\n    bounds"),
    proof("ArgMin-reversed", "decompose_index", "op.op(node.op_type, flipped", 'op.op("ArgMax", flipped'),
    proof("Hardmax-one-hot", "decompose_index", "[0.0, 1.0]", "[1.0, 0.0]"),
    proof("Einsum-contract", "decompose_more", "perm = [order.index(c) for c in result]", "perm = [result.index(c) for c in order]"),
    proof("DequantizeLinear-scaled", "decompose_more", "y = op.Sub(y, op.Cast(shift, to=to))", "pass"),
    proof("QuantizeLinear-rounded", "decompose_more", "op.Round(op.Div(x, factor))", "op.Floor(op.Div(x, factor))"),
    proof("QLinearMatMul-between-floats", "decompose_more", "op.DequantizeLinear(w, w_scale, w_zero))", "op.DequantizeLinear(w, w_scale, x_zero))"),
    proof("QLinearConv-between-floats", "decompose_more", "factor = op.Mul(x_scale, w_scale)", "factor = w_scale"),
    proof("MatMulInteger-int32", "decompose_more", "side = op.Sub(side, op.Cast(shift, to=to))", "pass"),
]  # fmt: skip

# What keeps a plan's partitions convex: without either, a path may leave a partition and come back.
PLAN = [
    Mutant(
        "planner: a node settles without looking at its neighbours' order",
        "plan/partition.py",
        "low, high = max(before, default=0), min(after, default=len(groups) - 1)",
        "low, high = 0, len(groups) - 1",
        ("tests/plan/test_partition.py",),
    ),
    Mutant(
        "planner: a walk takes nodes before what they read",
        "plan/partition.py",
        "_steps(labels, problem.predecessors, problem.successors, order, first)",
        "_steps(labels, [()] * problem.size, problem.successors, order, first)",
        ("tests/plan/test_partition.py",),
    ),
]

MUTANTS: list[Mutant] = [*FUSE, *CANCEL, *SINK, *LINEAR, *PASSES, *PARTS, *PLAN]


def run(mutant: Mutant) -> tuple[str, float]:
    """ "killed", "SURVIVED", or why the mutant could not be made; and the seconds it took."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        file = copy / "autoglm" / mutant.file
        text = file.read_text("utf-8")
        if text.count(mutant.old) != 1:
            return f"NOT MADE: its text occurs {text.count(mutant.old)} times", 0.0
        file.write_text(text.replace(mutant.old, mutant.new), "utf-8")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            *mutant.tests,
        ]
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            return "killed (time-out)", time.monotonic() - start
    verdict = {0: "SURVIVED", 1: "killed"}.get(
        done.returncode, f"NOT RUN: pytest {done.returncode}"
    )
    return verdict, time.monotonic() - start


def main() -> int:
    """Run the chosen mutants and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="only mutants whose name contains one of these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.words or any(w in m.name for w in options.words)]
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = []
        for mutant, (verdict, seconds) in zip(chosen, pool.map(run, chosen), strict=True):
            verdicts.append(verdict)
            print(f"{verdict:<12} {seconds:5.1f} s  {mutant.name}", flush=True)
    killed = sum(v.startswith("killed") for v in verdicts)
    print(f"{killed} of {len(chosen)} mutants killed")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    raise SystemExit(main())
