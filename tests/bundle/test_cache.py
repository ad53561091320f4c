"""The cache gives back what was put, whole, or nothing: kills, full disks, flipped bytes."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoglm.bundle import cache
from autoglm.errors import BundleError

FACTS = {
    "graph_digest": "g",
    "config": {"precision": "fp32"},
    "backend": "onnxruntime",
    "toolkit": "1.23",
    "driver": "6.1",
    "cpu_features": "avx2",
}


def key(number: int = 0) -> str:
    return f"{number:064x}"


def artifact(folder: Path, text: str = "data") -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "model.onnx").write_text(text)
    (folder / "deep" / "weights").write_text(text * 1000)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


def test_what_is_put_is_given_back(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    assert cache.get(key(), root=root) is None

    cache.put(key(), artifact(tmp_path / "a"), root=root)
    found = cache.get(key(), root=root)

    assert found is not None
    assert (found / "model.onnx").read_text() == "data"
    assert (found / "deep" / "weights").read_text() == "data" * 1000
    assert names(root) == [key()]
    assert cache.clear(root=root) == 1
    assert cache.get(key(), root=root) is None


def test_the_key_tells_everything_that_matters_apart() -> None:
    one = cache.cache_key(**FACTS)

    assert one == cache.cache_key(**FACTS)
    assert len({one, *(cache.cache_key(**{**FACTS, name: "other"}) for name in FACTS)}) == 7
    with pytest.raises(BundleError, match="not a cache key"):
        cache.get("../../etc")


def test_the_first_stays_and_both_writers_succeed(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    cache.put(key(), artifact(tmp_path / "a", "one"), root=root)

    found = cache.put(key(), artifact(tmp_path / "b", "two"), root=root)

    assert found is not None
    assert (found / "model.onnx").read_text() == "one"


@pytest.mark.parametrize(
    "damage",
    [
        "printf X | dd of=files/deep/weights bs=1 seek=77 conv=notrunc",
        "rm files/model.onnx",
        "echo more >> files/model.onnx",
        "echo more > files/stranger",
        "rm entry.json",
        ": > entry.json",
        "echo '{}' > entry.json",
        "sed -i 's/model/mode1/' entry.json",
        "rm -r files",
        "rm files/model.onnx; ln -s /etc/passwd files/model.onnx",
    ],
)
def test_a_damaged_entry_is_removed_and_can_be_built_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "cache"
    source = artifact(tmp_path / "a")
    cache.put(key(), source, root=root)
    subprocess.run(["sh", "-c", damage], cwd=root / key(), check=True, capture_output=True)

    with caplog.at_level(logging.WARNING):
        assert cache.get(key(), root=root) is None
    assert "damaged and was removed" in caplog.text
    assert names(root) == []

    again = cache.put(key(), source, root=root)
    assert again is not None
    assert (again / "model.onnx").read_text() == "data"


def test_putting_over_a_damaged_entry_mends_it(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    source = artifact(tmp_path / "a")
    cache.put(key(), source, root=root)
    (root / key() / "files" / "model.onnx").write_text("DATA")

    found = cache.put(key(), source, root=root)

    assert found is not None
    assert (found / "model.onnx").read_text() == "data"


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    for number in range(4):
        cache.put(key(number), artifact(tmp_path / str(number)), root=root)
        when = time.time() - 100_000 + number
        os.utime(root / key(number) / "entry.json", (when, when))
    cache.get(key(0), root=root)  # used just now

    assert cache.evict(root=root, max_bytes=10_000) == [key(1), key(2)]
    assert names(root) == [key(0), key(3)]
    assert cache.evict(root=root, max_bytes=0) == [key(3)]  # what was just used stays
    assert cache.evict(root=root, max_bytes=0, grace_s=0) == [key(0)]


def test_putting_makes_room(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    cache.put(key(0), artifact(tmp_path / "0"), root=root)
    os.utime(root / key(0) / "entry.json", (1, 1))

    cache.put(key(1), artifact(tmp_path / "1"), root=root, max_bytes=5000)

    assert names(root) == [key(1)]


# Puts entries in turn for ever; a parent kills it. Entry n holds the text "n".
WRITER = textwrap.dedent("""
    import itertools, shutil, sys
    from pathlib import Path
    from autoglm.bundle import cache
    home, turn = Path(sys.argv[1]), sys.argv[2]
    print("ready", flush=True)
    for number in itertools.cycle(range(6)):
        source = home / f"work{turn}"
        shutil.rmtree(source, ignore_errors=True)
        (source / "deep").mkdir(parents=True)
        (source / "model.onnx").write_text(str(number))
        (source / "deep" / "weights").write_text(str(number) * 200_000)
        key = f"{number:064x}"
        found = cache.put(key, source, root=home / "cache")
        assert found is not None
        if sys.argv[3] == "remove" and number == 5:
            cache.clear(root=home / "cache")
""")


def start(home: Path, turn: int, mode: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home), str(turn), mode], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    return child


def check_entries(root: Path) -> int:
    """How many entries there are; each visible one must be whole, seen without the cache's help."""
    count = 0
    for entry in root.iterdir() if root.exists() else ():
        if entry.name.startswith("."):
            continue
        number = str(int(entry.name, 16))
        assert (entry / "files" / "model.onnx").read_text() == number
        assert (entry / "files" / "deep" / "weights").read_text() == number * 200_000
        assert json.loads((entry / "entry.json").read_text())["version"] == 1
        found = cache.get(entry.name, root=root)
        assert found is not None
        count += 1
    return count


def test_kill_9_at_random_moments_never_leaves_a_broken_entry(tmp_path: Path) -> None:
    moment = random.Random(7)
    seen = 0
    for turn in range(32):
        child = start(tmp_path, turn, "remove")
        time.sleep(moment.uniform(0, 0.06))
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        assert child.stdout is not None
        child.stdout.close()
        seen += check_entries(tmp_path / "cache")

    assert seen > 0
    cache.put(key(), artifact(tmp_path / "last", "0"), root=tmp_path / "cache")
    cache.evict(root=tmp_path / "cache")
    assert not [n for n in os.listdir(tmp_path / "cache") if n.endswith(".tmp")]


def test_two_processes_at_once_both_succeed(tmp_path: Path) -> None:
    children = [start(tmp_path, turn, "keep") for turn in range(2)]
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        for number in range(6):
            found = cache.get(key(number), root=tmp_path / "cache")
            assert found is None or (found / "model.onnx").read_text() == str(number)
    for child in children:
        assert child.poll() is None  # neither has failed
        child.kill()
        child.wait(10)
        assert child.stdout is not None
        child.stdout.close()

    assert check_entries(tmp_path / "cache") == 6


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount program here")
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_costs_the_entry_and_not_the_compile(
    small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = small_disk / "cache"
    cache.put(key(0), artifact(tmp_path / "a"), root=root)
    big = artifact(tmp_path / "b")
    (big / "big").write_bytes(bytes(2 << 20))

    with caplog.at_level(logging.WARNING):
        assert cache.put(key(1), big, root=root) is None

    assert "No space left" in caplog.text
    assert names(root) == [key(0)]
    assert cache.get(key(0), root=root) is not None
    assert cache.get(key(1), root=root) is None


@pytest.mark.parametrize("name", ["code.py", "deep/limits.toml", "deep/pack.json"])
def test_our_own_code_and_tables_are_part_of_the_key(tmp_path: Path, name: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / name).write_text("one")
    before = cache.sources_digest(tmp_path)
    (tmp_path / name).write_text("two")

    assert cache.sources_digest(tmp_path) != before
