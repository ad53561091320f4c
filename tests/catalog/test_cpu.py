"""The CPU, from /proc and /sys trees made up for the purpose, and from lscpu."""

from __future__ import annotations

from pathlib import Path

from device_samples import sample

from autoglm.catalog.cpu import Cpu, here, parse_lscpu


def test_lscpu_json_is_read_whole() -> None:
    cpu = parse_lscpu(sample("lscpu-J"))

    assert (cpu.arch, cpu.model) == ("x86_64", "AMD EPYC")
    assert (cpu.threads, cpu.cores, cpu.sockets, cpu.numa_nodes) == (2, 2, 1, 1)
    assert {"avx512_bf16", "avx512_vnni", "avx2"} <= cpu.flags
    assert cpu.caches == {"L1d": 65536, "L1i": 65536, "L2": 2**21, "L3": 2**25}


def test_lscpu_columns_count_what_they_hold() -> None:
    cpu = parse_lscpu(sample("lscpu-p"))

    assert (cpu.threads, cpu.cores, cpu.sockets, cpu.numa_nodes) == (2, 2, 1, 1)


def test_hyperthreads_share_a_core() -> None:
    cpu = parse_lscpu("# CPU,Core,Socket,Node\n0,0,0,0\n1,0,0,0\n2,0,1,1\n3,0,1,1\n")

    assert (cpu.threads, cpu.cores, cpu.sockets, cpu.numa_nodes) == (4, 2, 2, 2)


def test_what_is_no_lscpu_is_an_empty_cpu() -> None:
    assert parse_lscpu("lscpu: command not found") == Cpu()
    assert parse_lscpu('{"lscpu": 3}') == Cpu()
    assert parse_lscpu('{"lscpu": [{"field": 1}]}') == Cpu()


def test_the_machine_is_read_from_proc_and_sys(tmp_path: Path) -> None:
    write(
        tmp_path / "proc/cpuinfo",
        "".join(
            f"processor\t: {i}\nmodel name\t: Xeon\nphysical id\t: {i // 4}\nflags\t: fma avx2\n\n"
            for i in range(8)
        ),
    )
    for i in range(8):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{i}"
        write(folder / "topology/core_cpus_list", f"{i // 2 * 2}-{i // 2 * 2 + 1}\n")
        cache(folder / "cache/index0", "1", "Data", "48K", f"{i // 2 * 2}-{i // 2 * 2 + 1}")
        cache(folder / "cache/index3", "3", "Unified", "105M", f"{i // 4 * 4}-{i // 4 * 4 + 3}")
    for node in range(2):
        (tmp_path / f"sys/devices/system/node/node{node}").mkdir(parents=True)

    cpu = here(tmp_path)

    assert (cpu.model, cpu.threads, cpu.cores, cpu.sockets, cpu.numa_nodes) == ("Xeon", 8, 4, 2, 2)
    assert cpu.caches == {"L1d": 4 * 48 * 2**10, "L3": 2 * 105 * 2**20}
    assert cpu.to_dict()["flags"] == ["avx2", "fma"]


def test_an_arm_cpu_names_its_features(tmp_path: Path) -> None:
    write(tmp_path / "proc/cpuinfo", "processor\t: 0\nFeatures\t: asimd asimddp i8mm sve\n")

    assert here(tmp_path).flags == {"asimd", "asimddp", "i8mm", "sve"}


def test_a_machine_that_says_nothing_gives_zeros(tmp_path: Path) -> None:
    cpu = here(tmp_path)

    assert (cpu.threads, cpu.cores, cpu.sockets, cpu.numa_nodes) == (0, 0, 0, 0)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def cache(folder: Path, level: str, kind: str, size: str, shared: str) -> None:
    for name, text in (
        ("level", level),
        ("type", kind),
        ("size", size),
        ("shared_cpu_list", shared),
    ):
        write(folder / name, text)
