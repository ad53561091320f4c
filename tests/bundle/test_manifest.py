"""A bundle says what it holds, is there whole or not at all, and no change to it goes unseen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoglm.bundle.manifest import (
    MANIFEST,
    VERSION,
    _digest,
    is_bundle,
    read_artifact,
    read_bundle,
    verify,
    write_artifact,
    write_bundle,
)
from autoglm.bundle.pack import ALIGNMENT, pack, unpack
from autoglm.errors import AutoGLMError, BundleError, FileMissingError, LimitError, WriteError
from autoglm.spec import (
    Artifact,
    Certificate,
    Evidence,
    Partition,
    Plan,
    Refusal,
    TensorInfo,
    Verdict,
)

X = TensorInfo("x", "float32", ("batch", 3, None))
Y = TensorInfo("y", "bfloat16", None, "sequence")
ARTIFACT = Artifact("onnxruntime", "onnx", "model.onnx", "1.23", (X,), (Y,), meta={"a": [1, "b"]})
PLAN = Plan(
    "auto",
    "fp32",
    (Partition("p0", "onnxruntime", ("a", "b"), ("x",), ("y",), "fp32", 1e-3),),
    refusals=(Refusal("c", "Conv", "npu", Verdict.NO, "dtype", "why", Evidence.MEASURED),),
)
CERTIFICATE = Certificate("model", "fp32", "ort", 0.0, float("inf"), 1.0, 1e-4, True, 2)


def work(folder: Path, data: bytes = b"weights" * 1000) -> Path:
    place = folder / "work" / "artifacts" / "p0"
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.onnx").write_bytes(b"graph")
    (place / "model.data").write_bytes(data)
    write_artifact(place, ARTIFACT)
    return folder / "work"


def bundle(folder: Path, name: str = "out", **changes: Any) -> Path:
    facts: dict[str, Any] = {
        "plan": PLAN,
        "artifacts": {"p0": ARTIFACT},
        "inputs": [X],
        "outputs": [Y],
        "certificates": [CERTIFICATE],
        "measurements": [{"engine": "ort", "seconds": 1.5}],
        "report": {"nodes": 2},
    }
    return write_bundle(folder / name, work(folder), **{**facts, **changes})


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest as one would who can compute its digest."""
    data = json.loads((folder / MANIFEST).read_text())
    del data["digest"]
    change(data)
    (folder / MANIFEST).write_text(json.dumps({**data, "digest": _digest(data)}))


def test_a_bundle_gives_back_what_was_written(tmp_path: Path) -> None:
    found = read_bundle(bundle(tmp_path))

    assert found.plan == PLAN
    assert dict(found.artifacts) == {"p0": ARTIFACT}
    assert (found.inputs, found.outputs) == ((X,), (Y,))
    assert found.certificates == (CERTIFICATE,)
    assert found.measurements == ({"engine": "ort", "seconds": 1.5},)
    assert found.report == {"nodes": 2}
    assert (found.folder / "artifacts" / "p0" / "model.onnx").read_bytes() == b"graph"
    assert read_artifact(found.folder / "artifacts" / "p0") == ARTIFACT


def test_a_bundle_is_plain_json_and_says_all_of_itself(tmp_path: Path) -> None:
    path = bundle(tmp_path)

    for file in path.glob("*.json"):
        json.loads(file.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    said = json.loads(json.dumps(read_bundle(path).to_dict(), allow_nan=False))

    assert said["plan"]["partitions"][0]["nodes"] == ["a", "b"]
    assert said["certificates"][0]["sqnr_db"] == "inf"
    assert said["files"]["artifacts/p0/model.onnx"]["size"] == 5
    assert said["folder"] == str(path)


def test_the_same_content_has_the_same_digest_and_another_another(tmp_path: Path) -> None:
    one, two = bundle(tmp_path, "one"), bundle(tmp_path, "two")
    three = bundle(tmp_path, "three", plan=replace(PLAN, precision="fp16"))

    digests = [read_bundle(path).manifest.digest for path in (one, two, three)]

    assert digests[0] == digests[1] != digests[2]


def test_a_bundle_replaces_a_bundle_and_nothing_else(tmp_path: Path) -> None:
    path = bundle(tmp_path)
    bundle(tmp_path, plan=replace(PLAN, precision="fp16"))
    assert read_bundle(path).plan.precision == "fp16"
    (tmp_path / "empty").mkdir()
    bundle(tmp_path, "empty")

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for name in ("mine", "file"):
        with pytest.raises(WriteError, match="is not a bundle; it is left as it is"):
            bundle(tmp_path, name)

    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "mine", "out", "work"]


def test_a_failed_write_keeps_the_older_bundle(tmp_path: Path) -> None:
    path = bundle(tmp_path)

    with pytest.raises(BundleError, match="cannot be written to JSON"):
        bundle(tmp_path, report={"x": object()})

    assert verify(path) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "work"]


@settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_every_single_flipped_byte_is_found(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "out" if (tmp_path / "out").exists() else bundle(tmp_path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    victim = data.draw(st.sampled_from(files))
    before = victim.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    after = bytearray(before)
    after[at] ^= data.draw(st.integers(1, 255))
    victim.write_bytes(after)

    problems = verify(path)
    victim.write_bytes(before)

    # The manifest is compared as JSON: white space is not content.
    same = victim.name == MANIFEST and same_json(bytes(after), json.loads(before))
    assert bool(problems) is not same
    assert verify(path) == []


def same_json(content: bytes, whole: Any) -> bool:
    try:
        return bool(json.loads(content) == whole)
    except ValueError:
        return False


def test_missing_extra_and_shortened_files_are_found(tmp_path: Path) -> None:
    for change, words in {
        "rm artifacts/p0/model.data": "artifacts/p0/model.data is missing",
        "rm plan.json": "plan.json is missing",
        "echo x > stranger": "stranger is not in the manifest",
        "mkdir d; echo x > d/e": "d/e is not in the manifest",
        "echo x >> plan.json": "bytes",
        "rm plan.json; mkdir plan.json": "not a regular file",
        "rm plan.json; ln -s /etc/passwd plan.json": "link",
        "mv artifacts a; ln -s a artifacts": "link",
        "rm artifacts/p0/model.onnx; mkfifo artifacts/p0/model.onnx": "not a regular file",
    }.items():
        path = bundle(tmp_path, "b" + str(abs(hash(change))))
        subprocess.run(["sh", "-c", change], cwd=path, check=True)
        assert any(words in problem for problem in verify(path)), (change, verify(path))
        with pytest.raises(BundleError, match="damaged"):
            read_bundle(path)


def test_looking_at_sizes_only_is_a_choice(tmp_path: Path) -> None:
    path = bundle(tmp_path)
    data = path / "artifacts" / "p0" / "model.data"
    data.write_bytes(b"x" + data.read_bytes()[1:])

    assert read_bundle(path, verify="size").plan == PLAN
    with pytest.raises(BundleError, match="has changed since it was written"):
        read_bundle(path)
    data.write_bytes(b"short")
    assert read_bundle(path, verify="none").plan == PLAN
    with pytest.raises(BundleError, match="has 5 bytes, 7000 were written"):
        read_bundle(path, verify="size")
    with pytest.raises(BundleError, match="'everything'"):
        read_bundle(path, verify="everything")


def test_a_newer_format_says_what_to_do(tmp_path: Path) -> None:
    path = bundle(tmp_path)
    rewrite(path, lambda data: data.update(version=VERSION + 1))

    with pytest.raises(BundleError, match=f"format {VERSION + 1}; this autoglm reads") as caught:
        read_bundle(path)
    assert "Upgrade autoglm" in caught.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "a/../../secret",
        "./plan.json",
        "a//b",
        "",
        "..",
        "a\\..\\b",
        "a\0b",
    ],
)
def test_a_path_that_leaves_the_bundle_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("secret")
    path = bundle(tmp_path)

    def add(data: dict[str, Any]) -> None:
        data["files"][name] = {"size": 6, "sha256": "0" * 64}

    rewrite(path, add)

    with pytest.raises(BundleError, match="not a path inside a bundle"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("name", "entry"), [("../../secret", ""), ("p0", "../../../secret"), ("p0", "/etc/passwd")]
)
def test_an_artifact_outside_the_bundle_is_refused(tmp_path: Path, name: str, entry: str) -> None:
    path = bundle(tmp_path)

    def move(data: dict[str, Any]) -> None:
        data["artifacts"] = {name: {**data["artifacts"]["p0"], "entry": entry}}

    rewrite(path, move)

    with pytest.raises(BundleError, match="not a path inside a bundle"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("inputs"), "expected a key 'inputs', found none"),
        (lambda d: d.update(inputs={}), r"inputs: expected a list, found an object"),
        (lambda d: d["inputs"][0].update(shape=[1.5]), r"inputs\[0\].shape"),
        (
            lambda d: d["files"]["plan.json"].update(size="1"),
            "size: expected a whole number, found text",
        ),
        (
            lambda d: d["files"]["plan.json"].update(size=True),
            "expected a whole number, found bool",
        ),
        (lambda d: d.update(artifacts=[]), "artifacts: expected an object, found a list"),
    ],
)
def test_a_manifest_that_does_not_fit_is_named_by_place(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    path = bundle(tmp_path)
    rewrite(path, change)

    with pytest.raises(BundleError, match=words):
        read_bundle(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"format": "zip"}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)

    assert is_bundle(tmp_path)
    assert len(verify(tmp_path)) == 1
    with pytest.raises(BundleError):
        read_bundle(tmp_path)


def test_a_folder_without_manifest_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle") as caught:
        read_bundle(tmp_path)
    assert "autoglm compile" in caught.value.hint
    with pytest.raises(BundleError, match="There is no bundle"):
        read_bundle(tmp_path / "missing")


def test_links_among_the_artifacts_are_not_bundled(tmp_path: Path) -> None:
    source = work(tmp_path)
    (source / "artifacts" / "p0" / "link").symlink_to("/etc/passwd")

    with pytest.raises(WriteError, match="not a regular file"):
        bundle(tmp_path)
    assert not (tmp_path / "out").exists()


WRITER = textwrap.dedent("""
    import itertools, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_manifest import PLAN, bundle
    from dataclasses import replace
    print("ready", flush=True)
    for turn in itertools.count(int(sys.argv[3])):
        bundle(Path(sys.argv[1]), plan=replace(PLAN, seconds=float(turn)))
""")


def test_kill_9_leaves_the_old_bundle_or_the_new(tmp_path: Path) -> None:
    bundle(tmp_path, plan=replace(PLAN, seconds=-1.0))
    seen = set()
    for turn in range(5):
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                WRITER,
                str(tmp_path),
                str(Path(__file__).parent),
                str(turn * 999),
            ],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.03 + 0.017 * turn)
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        child.stdout.close()
        seen.add(read_bundle(tmp_path / "out").plan.seconds)

    assert len(seen) > 1
    bundle(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "work"]


def test_a_packed_bundle_unpacks_to_the_same(tmp_path: Path) -> None:
    path = bundle(tmp_path)

    packed = pack(path, tmp_path / "m.autoglm")
    back = unpack(packed, tmp_path / "back")

    assert read_bundle(back).manifest.digest == read_bundle(path).manifest.digest
    assert pack(back, tmp_path / "n.autoglm").read_bytes() == packed.read_bytes()
    raw = packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist()[0] == MANIFEST
        for info in archive.infolist():
            start = info.header_offset + 30
            lengths = raw[start - 4 : start]
            start += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            assert start % ALIGNMENT == 0
            assert raw[start : start + info.file_size] == (path / info.filename).read_bytes()


def test_a_bad_package_leaves_nothing(tmp_path: Path) -> None:
    packed = pack(bundle(tmp_path), tmp_path / "m.zip")
    whole = packed.read_bytes()
    at = whole.index(b"weights")
    cases: dict[str, bytes] = {
        "cut": whole[:-40],
        "flipped": whole[:at] + b"X" + whole[at + 1 :],
        "text": b"hello",
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BundleError):
            unpack(tmp_path / name, tmp_path / "back")
    with pytest.raises(LimitError):
        unpack(packed, tmp_path / "back", max_bytes=1000)
    with pytest.raises(FileMissingError):
        unpack(tmp_path / "missing", tmp_path / "back")
    for name, kind in (("../slip", zipfile.ZIP_STORED), ("a", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(tmp_path / "evil", "w", kind) as archive:
            archive.writestr(name, "x")
        with pytest.raises(AutoGLMError):
            unpack(tmp_path / "evil", tmp_path / "back")

    assert not (tmp_path / "back").exists()
    assert not (tmp_path / "slip").exists()
    assert not [n for n in os.listdir(tmp_path) if n.endswith(".tmp")]
