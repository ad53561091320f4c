"""The chain under a device, read from files."""

from __future__ import annotations

from pathlib import Path

from fake_bus import plug_in

from autoglm.catalog.evidence import hinted, steps
from autoglm.catalog.pci import accelerators, families

ASCEND = next(f for f in families() if f.backend == "ascend")


def chain(root: Path) -> dict[str, bool | None]:
    device = next(iter(accelerators(root)), None)
    return {s.name: s.ok for s in steps(device, ASCEND, root=root)}


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_a_card_without_a_driver_says_where_the_chain_ends(tmp_path: Path) -> None:
    plug_in(tmp_path, "0000:18:00.0", "19e5:d802", "120000")

    assert chain(tmp_path) == {"pci": True, "driver": False, "node": False, "library": False}
    details = [s.detail for s in steps(accelerators(tmp_path)[0], ASCEND, root=tmp_path)]
    assert details[0] == "19e5:d802 at 0000:18:00.0"
    assert "drv_davinci" in details[1]


def test_a_whole_chain(tmp_path: Path) -> None:
    plug_in(tmp_path, "0000:18:00.0", "19e5:d802", "120000", "ascend_drv")
    touch(tmp_path, "dev/davinci_manager", "dev/davinci0", "usr/lib64/libascendcl.so")

    assert set(chain(tmp_path).values()) == {True}


def test_a_card_given_away_to_a_guest_is_told(tmp_path: Path) -> None:
    plug_in(tmp_path, "0000:18:00.0", "19e5:d802", "120000", "vfio-pci")

    found = {s.name: s for s in steps(accelerators(tmp_path)[0], ASCEND, root=tmp_path)}

    assert found["driver"].ok is False
    assert "vfio-pci" in found["driver"].detail


def test_in_a_container_the_bus_is_unknown_and_the_module_counts(tmp_path: Path) -> None:
    touch(tmp_path, "sys/module/davinci/refcnt", "dev/davinci_manager")

    found = chain(tmp_path)

    assert found["pci"] is None
    assert found["driver"] is True
    assert found["node"] is True


def test_a_library_is_found_in_the_linkers_cache_and_in_given_folders(tmp_path: Path) -> None:
    touch(tmp_path, "etc/x")
    (tmp_path / "etc/ld.so.cache").write_bytes(b"glibc\0libascendcl.so\0/opt/libascendcl.so\0")
    assert chain(tmp_path)["library"] is True

    (tmp_path / "etc/ld.so.cache").unlink()
    touch(tmp_path, "opt/mine/libascendcl.so")
    given = {s.name: s for s in steps(None, ASCEND, folders=["/opt/mine"], root=tmp_path)}
    assert given["library"].ok is True
    assert given["library"].detail == "/opt/mine/libascendcl.so"


def test_a_bus_or_a_node_hints_at_an_accelerator(tmp_path: Path) -> None:
    assert not hinted(root=tmp_path)

    touch(tmp_path, "dev/davinci3")

    assert hinted(root=tmp_path)
    assert hinted(["ascend"], root=tmp_path)
    assert not hinted(["openvino"], root=tmp_path)
