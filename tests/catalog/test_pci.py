"""PCI ids as ground truth, on sysfs trees made up for the purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_bus import plug_in

from autoglm.catalog.chips import find
from autoglm.catalog.pci import accelerators, families, name_of, present


@pytest.mark.parametrize(
    ("pci_id", "kind", "name", "backend"),
    [
        ("10de:2330", "030200", "H100 SXM", "cuda"),
        ("10de:1234", "030000", "NVIDIA GPU", "cuda"),
        ("19e5:d802", "120000", "Ascend 910B", "ascend"),
        ("19e5:d803", "120000", "Ascend 910C", "ascend"),
        ("cabc:0370", "120000", "MLU370", "cambricon"),
        ("1d22:3684", "120000", "K200", "kunlun"),
        ("1f1c:1686", "120000", "BM1684X", "sophon"),
        ("1e30:1684", "120000", "BM1684", "sophon"),
        ("8086:56a0", "030000", "Arc A770", "openvino"),
        ("8086:7d1d", "120000", "Core Ultra 7 155H NPU", "openvino"),
        ("1002:74a1", "120000", "MI300X", "torch"),
        ("1da3:1060", "120000", "Gaudi 3", "torch"),
    ],
)
def test_an_accelerator_is_known_by_its_id(
    pci_id: str, kind: str, name: str, backend: str, tmp_path: Path
) -> None:
    plug_in(tmp_path, "0000:18:00.0", pci_id, kind, "some_driver")

    (found,) = accelerators(tmp_path)

    assert (found.name, found.family.backend) == (name, backend)
    assert (found.pci_id, found.bus_id, found.driver) == (pci_id, "0000:18:00.0", "some_driver")
    assert found.numa_node is None
    assert present(backend, tmp_path)


@pytest.mark.parametrize(
    ("pci_id", "kind", "what"),
    [
        ("19e5:1711", "030000", "the VGA of a Huawei BMC"),
        ("19e5:1822", "020000", "a Huawei network card"),
        ("10de:22a3", "068000", "an NVSwitch"),
        ("10de:10f9", "040300", "a GPU's audio function"),
        ("1f1c:2042", "060400", "a Sophgo host bridge"),
        ("8086:0b25", "088000", "Intel DSA"),
        ("1af4:1050", "038000", "virtio's display"),
    ],
)
def test_what_is_no_accelerator_is_left_out(
    pci_id: str, kind: str, what: str, tmp_path: Path
) -> None:
    plug_in(tmp_path, "0000:01:00.0", pci_id, kind)

    assert accelerators(tmp_path) == (), what


def test_no_sysfs_is_no_accelerator(tmp_path: Path) -> None:
    assert accelerators(tmp_path) == ()


def test_a_torn_entry_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/pci/devices/0000:00:00.0"
    folder.mkdir(parents=True)
    (folder / "vendor").write_bytes(b"\xff\xfe")

    assert accelerators(tmp_path) == ()


def test_an_id_names_its_chip() -> None:
    assert name_of("10de:2335") == "H200"
    assert name_of("10de:ffff") == name_of("") == name_of("nonsense") == ""


def test_every_named_chip_is_in_the_catalog_and_every_family_names_its_source() -> None:
    names = {n for family in families() for n in family.devices.values()}

    assert {n for n in names if find(n) is None} == {"GTX 1660"}
    assert all(family.source and family.next for family in families())
