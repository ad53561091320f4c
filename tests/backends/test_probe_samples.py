"""Every recorded output gives the right chip, memory, driver and health."""

from __future__ import annotations

import pytest
from device_samples import FOLDER, PARSERS, kunlun_smi, npu_smi, nvidia_smi, parser_of, sample

from autoglm.backends.cuda.smi import versions
from autoglm.catalog.cards import MIB, Card, Slice, to_device
from autoglm.catalog.smi import intel

# sample: (cards, chip, memory MiB, driver, health, bus id of the first)
EXPECTED = {
    "nvidia-smi-q-x-a100": (1, "A100 80GB SXM", 81920, "535.54.03", "OK", "0000:01:00.0"),
    "nvidia-smi-q-x-a10g": (1, "A10G", 23028, "515.105.01", "OK", "0000:00:1e.0"),
    "nvidia-smi-q-x-gtx-1070": (1, "GTX 1070 Ti", 4096, "", "", "0000:01:00.0"),
    "nvidia-smi-q-x-rtx-3080": (1, "RTX 3080", 10240, "595.58.03", "OK", "0000:0c:00.0"),
    "nvidia-smi-q-x-rtx-4000": (1, "RTX 4000 SFF Ada", 20475, "595.84", "OK", "0000:06:00.0"),
    "nvidia-smi-q-x-tesla-t4": (1, "T4", 15360, "515.105.01", "OK", "0000:00:1e.0"),
    "nvidia-smi-q-idle__linux-x86_64__nvidia-geforce": (
        *(1, "RTX 2080 SUPER", 8192, "595.71.05", "OK", "0000:0c:00.0"),
    ),
    "nvidia-smi-q-idle__linux-x86_64__nvidia-h100": (
        *(1, "H100 SXM", 81559, "590.48.01", "OK", "0000:00:09.0"),
    ),
    "nvidia-smi-q-load__linux": (1, "L40S", 46068, "595.80", "OK", "0000:01:00.0"),
    "nvidia-smi-q-load__windows": (1, "RTX 2080 SUPER", 8192, "610.62", "OK", "0000:0c:00.0"),
    "nvidia-smi-query-gpu-idle": (1, "H100 SXM", 81559, "590.48.01", "OK", "0000:00:09.0"),
    "nvidia-smi-query-gpu-load__linux": (1, "H200", 143771, "590.48.01", "OK", "0000:83:00.0"),
    "nvidia-smi-query-gpu-load__windows": (
        *(1, "RTX 2080 SUPER", 8192, "610.62", "OK", "0000:0c:00.0"),
    ),
    "nvidia-smi-table-idle__linux-x86_64__nvidia-h100": (
        *(1, "H100 SXM", 81559, "590.48.01", "OK", "0000:00:09.0"),
    ),
    # The table cuts long names, so the chip stays open.
    "nvidia-smi-table-idle__linux-x86_64__nvidia-geforce": (
        *(1, "", 8192, "610.57.04", "", "0000:0c:00.0"),
    ),
    "nvidia-smi-table-idle__windows": (1, "", 8192, "591.86", "", "0000:0c:00.0"),
    "nvidia-smi-table-load__linux-x86_64__nvidia-geforce": (
        *(1, "", 16376, "595.71.05", "", "0000:01:00.0"),
    ),
    "nvidia-smi-table-load__linux-x86_64__nvidia-l40s": (
        *(1, "L40S", 46068, "595.80", "OK", "0000:01:00.0"),
    ),
    "nvidia-smi-table-load__windows": (1, "", 8192, "610.62", "", "0000:0c:00.0"),
    "nvidia-smi-L__linux-x86_64__nvidia-geforce": (1, "RTX 4080 SUPER", None, "", "", ""),
    "nvidia-smi-L__linux-x86_64__nvidia-h100": (1, "H100 SXM", None, "", "", ""),
    "nvidia-smi-L__linux-x86_64__nvidia-h200": (1, "H200", None, "", "", ""),
    "npu-smi-310P3": (1, "Ascend 310P3", 21534, "22.0.2", "OK", "0000:86:00.0"),
    "npu-smi-910B2C": (2, "Ascend 910B2C", 65536, "23.0.3", "OK", "0000:5a:00.0"),
    "npu-smi-910B4-24": (2, "Ascend 910B4", 32768, "24.1.1", "OK", "0000:c1:00.0"),
    "npu-smi-910B4-25": (1, "Ascend 910B4", 32768, "25.5.2", "OK", "0000:41:00.0"),
    "npu-smi-A3": (2, "Ascend 910C", 65536, "26.0.rc2", "OK", "0000:9d:00.0"),
    "cnmon-v4.20": (3, "MLU370-X4", 23308, "4.20.11", "", ""),
    "cnmon-v5.10.10": (2, "MLU370-X4", 23308, "5.10.10", "", "0000:1b:00.0"),
    "cnmon-v5.10.13": (2, "MLU370-X8", 23374, "5.10.13", "", "0000:39:00.0"),
    "xpu-smi-kunlun": (8, "P800", 98304, "515.58", "OK", "0000:52:00.0"),
    "xpu-smi-intel": (1, "Arc A770", 16288, "96E1802BAF7F7118043A89B", "", "0000:03:00.0"),
    "handmade-bm-smi-pcie": (2, "BM1684X", 14336, "0.5.1", "Active", "0000:01:00.0"),
    "handmade-bm-smi-soc": (1, "BM1684X", 13127, "0.4.9", "Active", ""),
}


def cards(name: str) -> list[Card]:
    (path,) = FOLDER.glob(f"{name}*")
    parse = parser_of(path)
    assert parse
    return parse(path.read_text("utf-8", "replace"))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_output_gives_its_cards(name: str) -> None:
    count, chip, memory, driver, health, bus_id = EXPECTED[name]

    found = cards(name)

    assert len(found) == count
    first = found[0]
    assert (first.chip.name if first.chip else "") == chip
    assert first.memory_total == (None if memory is None else memory * MIB)
    assert (first.driver, first.health, first.bus_id) == (driver, health, bus_id)


def test_every_sample_of_a_listing_command_is_checked() -> None:
    other = ("version", "topo-m", "nvlinks", "q-x-gtx-1660")  # of these below
    listings = [
        path.name
        for path in FOLDER.iterdir()
        if parser_of(path) and not any(word in path.name for word in other)
    ]

    assert [n for n in listings if not any(n.startswith(e) for e in EXPECTED)] == []


def test_each_sample_names_its_source() -> None:
    notice = (FOLDER / "SOURCES.md").read_text("utf-8")
    kinds = {"nvidia-smi": "nvidia_gpu_exporter", "nvidia-smi-q-x": "telegraf"}

    for path in FOLDER.iterdir():
        known = path.name in notice or any(path.name.startswith(k) for k in kinds)
        assert known or path.name == "SOURCES.md", path.name


def test_a_busy_nvidia_gpu_in_full() -> None:
    (card,) = cards("nvidia-smi-q-load__linux")

    assert card.name == "NVIDIA L40S"
    assert card.memory_used == 1235 * MIB
    assert (card.utilisation, card.temperature_c) == (9, 54)
    assert (card.power_w, card.power_limit_w) == (110.24, 350)


def test_mig_slices_have_profiles_in_the_list_and_memory_in_the_log() -> None:
    (listed,) = cards("nvidia-smi-L__linux-x86_64__nvidia-h100")
    (logged,) = cards("nvidia-smi-q-idle__linux-x86_64__nvidia-h100")
    (xml,) = cards("nvidia-smi-q-x-a100")

    assert [s.profile for s in listed.slices] == ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]
    assert [s.memory_total for s in logged.slices if s.memory_total] == [
        size * MIB for size in (40448, 20096, 9984, 9984)
    ]
    assert [s.memory_total for s in xml.slices] == [19968 * MIB] * 4
    assert logged.memory_total == 81559 * MIB


def test_profiles_and_memory_of_one_slice_are_joined() -> None:
    from autoglm.backends.cuda.probe import _merged

    joined = _merged([Slice("instance 3", "0", "", 40 * MIB)], [Slice("3g.40gb", "0", "MIG-a")])

    assert joined == (Slice("3g.40gb", "0", "MIG-a", 40 * MIB),)


def test_a_driver_older_than_its_gpu_is_corrected_by_the_pci_id() -> None:
    from autoglm.backends.cuda.probe import _named

    (card,) = cards("nvidia-smi-q-x-gtx-1660-ti")

    assert card.name == "Graphics Device"
    assert _named(card).name == "GTX 1660"


@pytest.mark.parametrize(
    ("name", "driver", "cuda"),
    [
        ("nvidia-smi-version__linux-x86_64__nvidia-geforce", "610.57.04", "13.3"),
        ("nvidia-smi-version__linux-x86_64__nvidia-h100", "590.48.01", "13.1"),
        ("nvidia-smi-version__windows", "591.86", "13.1"),
    ],
)
def test_the_version_form_is_read_before_and_after_610(name: str, driver: str, cuda: str) -> None:
    assert versions(sample(name)) == {"driver": driver, "cuda": cuda}


@pytest.mark.parametrize("name", ["nvidia-smi-topo-m__linux", "nvidia-smi-version__windows"])
def test_another_commands_output_holds_no_cards(name: str) -> None:
    assert nvidia_smi(sample(name)) == []


def test_two_chips_of_one_module_know_each_other() -> None:
    first, second = cards("npu-smi-A3")

    assert (first.module, second.module) == ("0", "0")
    assert first.chips_in_module == second.chips_in_module == 2
    assert (first.index, second.index) == ("0", "1")  # Phy-ID
    assert (first.power_w, second.power_w) == (162.6, None)


def test_an_npus_id_is_its_own_not_its_place_in_the_list() -> None:
    assert [c.index for c in cards("npu-smi-910B4-25")] == ["5"]


def test_an_unhealthy_npu_says_so() -> None:
    text = sample("npu-smi-910B2C").replace("| OK  ", "| Alarm", 1)

    assert [c.health for c in npu_smi(text)] == ["Alarm", "OK"]


def test_the_l3_row_of_a_kunlun_card_is_not_its_memory() -> None:
    assert {c.memory_total for c in cards("xpu-smi-kunlun")} == {98304 * MIB}
    assert cards("xpu-smi-kunlun")[0].power_w == 98


def test_xpu_smi_is_told_apart_by_its_header() -> None:
    assert kunlun_smi(sample("xpu-smi-intel")) == []
    assert intel(sample("xpu-smi-kunlun")) == []


def test_the_second_chip_of_a_sophon_board_has_the_boards_name() -> None:
    _, second = cards("handmade-bm-smi-pcie")

    assert second.name == "BM1684X"
    assert second.chips_in_module == 2
    assert second.health == "Fault"


def test_a_card_becomes_a_device_with_its_figures_as_facts() -> None:
    card = cards("npu-smi-910B2C")[0]

    device = to_device(card, "ascend", "npu", "npu:0")

    assert device.memory_bytes == 65536 * MIB
    assert device.facts["chip"] == "Ascend 910B2C"
    assert device.facts["health"] == "OK"
    assert device.facts["power_w"] == "89.9"
    assert "firmware" not in device.facts


def test_every_parser_has_a_sample() -> None:
    used = {parser_of(path) for path in FOLDER.iterdir()}

    assert set(PARSERS.values()) <= used
