"""A file is there whole or not at all: through errors, full disks and kill -9."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoglm.errors import FileMissingError, WriteError
from autoglm.tensor.files import (
    atomic_file,
    atomic_folder,
    atomic_write,
    clean_stale,
    copy_tree,
    sha256_file,
    temporary_name,
)


class Interruption(Exception):
    """Something went wrong while the caller was writing."""


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    atomic_write(path, "old")

    atomic_write(path, b"new")

    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = atomic_write(tmp_path / "a.txt", "old")

    def write() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise Interruption

    with pytest.raises(Interruption):
        write()

    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_appears_whole_and_never_over_another(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as place:
        (place / "a").write_text("1")
        assert not target.exists()
    assert names(target) == ["a"]

    with pytest.raises(WriteError, match="not an empty folder"), atomic_folder(target):
        pytest.fail("the body must not run")
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as place:
        (place / "b").write_text("2")

    assert names(tmp_path) == ["empty", "out"]


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def write() -> None:
        with atomic_folder(target) as place:
            (place / "a").write_text("mine")
            target.mkdir()
            (target / "b").write_text("theirs")

    with pytest.raises(WriteError, match="not an empty folder"):
        write()

    assert names(target) == ["b"]
    assert names(tmp_path) == ["out"]


def test_replacing_a_folder_keeps_the_old_one_on_failure(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as place:
        (place / "old").write_text("1")

    def write() -> None:
        with atomic_folder(target, replace=True) as place:
            (place / "new").write_text("half")
            raise Interruption

    with pytest.raises(Interruption):
        write()
    assert names(target) == ["old"]

    with atomic_folder(target, replace=True) as place:
        (place / "new").write_text("2")
    assert names(target) == ["new"]
    assert names(tmp_path) == ["out"]


def test_a_folder_that_cannot_be_written_is_named_with_what_to_do() -> None:
    with pytest.raises(WriteError) as caught:
        atomic_write("/proc/nowhere/x", "data")

    assert "/proc/nowhere/x" in str(caught.value)
    assert "may write" in caught.value.hint


def test_another_files_trouble_is_not_called_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_folder(tmp_path / "out"):
        Path("/elsewhere/model.onnx").read_bytes()

    assert names(tmp_path) == []


def test_temporaries_of_dead_processes_are_cleaned_and_those_of_living_ones_kept(
    tmp_path: Path,
) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", STALE, str(tmp_path)], check=True, capture_output=True, text=True
    ).stdout.split()
    mine = temporary_name(tmp_path / "mine")
    mine.mkdir()
    foreign = tmp_path / ".x.00000000.1.1.00000000.tmp"
    foreign.write_text("another machine's, just written")
    old = tmp_path / ".y.00000000.1.1.00000000.tmp"
    old.write_text("another machine's, long ago")
    os.utime(old, (0, 0))
    (tmp_path / ".keep.tmp").write_text("not ours")

    assert len(dead) == 2
    assert clean_stale(tmp_path) == 3
    assert names(tmp_path) == sorted([".keep.tmp", mine.name, foreign.name])
    assert clean_stale(tmp_path / "missing") == 0


STALE = textwrap.dedent("""
    import sys
    from pathlib import Path
    from autoglm.tensor.files import temporary_name
    file, folder = (temporary_name(Path(sys.argv[1]) / name) for name in ("file", "folder"))
    file.write_text("half")
    (folder / "deep").mkdir(parents=True)
    print(file.name, folder.name)
""")

# Replaces a file and a folder for ever, each time with another content; a parent kills it.
WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from autoglm.tensor.files import atomic_folder, atomic_write
    home, count = Path(sys.argv[1]), int(sys.argv[2])
    print("ready", flush=True)
    while True:
        count += 1
        text = f"{count}\\n" * 20_000
        atomic_write(home / "file", text)
        with atomic_folder(home / "folder", replace=True) as place:
            (place / "a").write_text(text)
            (place / "b").write_text(text)
""")


def test_kill_9_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    seen: set[str] = set()
    for turn in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(turn * 100_000)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.02 + 0.013 * turn)
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        child.stdout.close()
        for texts in whole_states(tmp_path):
            assert len(set(texts)) == 1
            lines = texts[0].splitlines()
            assert len(lines) == 20_000
            assert len(set(lines)) == 1
            seen.add(lines[0])

    clean_stale(tmp_path)
    assert names(tmp_path) == ["file", "folder"]
    assert len(seen) > 1  # the children did write


SWAPPER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from autoglm.tensor.files import atomic_folder
    while True:
        with atomic_folder(Path(sys.argv[1]), replace=True) as place:
            (place / "a").touch()
""")


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: there, syncing costs nothing and turns are many."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as folder:
        yield Path(folder)


def test_a_folder_is_never_absent_while_it_is_replaced(memory_folder: Path) -> None:
    target = str(memory_folder / "folder")
    child = subprocess.Popen([sys.executable, "-c", SWAPPER, target])
    while not os.path.exists(target):
        assert child.poll() is None
    inodes: set[int] = set()
    absent, deadline = 0, time.monotonic() + 1.5
    while time.monotonic() < deadline:
        try:
            inodes.add(os.stat(target).st_ino)
        except FileNotFoundError:
            absent += 1
    child.kill()
    child.wait(10)

    assert len(inodes) > 5  # it was replaced under our eyes
    assert absent == 0


def whole_states(home: Path) -> Iterator[list[str]]:
    if (home / "file").exists():
        yield [(home / "file").read_text()]
    if (home / "folder").exists():
        yield [(home / "folder" / name).read_text() for name in ("a", "b")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
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


def test_a_full_disk_is_said_and_nothing_half_is_left(small_disk: Path) -> None:
    atomic_write(small_disk / "a", "old")

    with pytest.raises(WriteError) as caught:
        atomic_write(small_disk / "a", bytes(2 << 20))
    assert "No space left" in str(caught.value)
    assert "Free some space" in caught.value.hint
    with pytest.raises(WriteError, match="No space left"), atomic_folder(small_disk / "b") as place:
        (place / "x").write_bytes(bytes(2 << 20))

    assert (small_disk / "a").read_text() == "old"
    assert names(small_disk) == ["a"]


def test_copying_onto_a_full_disk_is_said(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "x").write_bytes(bytes(2 << 20))

    with pytest.raises(WriteError, match="No space left"), atomic_folder(small_disk / "b") as place:
        copy_tree(tmp_path / "big", place / "copy")

    assert names(small_disk) == []


def test_a_file_size_limit_is_a_full_disk_too(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(WriteError, match="too large"):
            atomic_write(tmp_path / "a", bytes(2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert names(tmp_path) == []


def test_copying_a_tree_refuses_links(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "a").write_text("1")
    copy_tree(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "a").read_text() == "1"

    (tmp_path / "in" / "link").symlink_to("/etc/passwd")
    with pytest.raises(WriteError, match="not a regular file"):
        copy_tree(tmp_path / "in", tmp_path / "again")


def test_a_hash_is_sha256_and_a_missing_file_is_named(tmp_path: Path) -> None:
    path = atomic_write(tmp_path / "a", b"abc")

    assert sha256_file(path).startswith("ba7816bf8f01cfea414140de5dae2223")
    with pytest.raises(FileMissingError, match="missing"):
        sha256_file(tmp_path / "missing")
