"""Every probe at once; one that hangs or breaks costs its own devices only."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from device_samples import sample
from fake_bus import plug_in

from autoglm import registry
from autoglm.catalog.remarks import listening, remark
from autoglm.runtime.hardware import Accelerator, backend_row, hardware, toolchain
from autoglm.spec import Capabilities, Device


class Plug:
    """A backend that answers its probe as told."""

    api_version = 1

    def __init__(self, name: str, devices: Sequence[Device] = (), installed: str = "1.0") -> None:
        self.name, self.devices, self.installed = name, devices, installed

    def probe(self) -> Sequence[Device]:
        return self.devices

    def version(self) -> str:
        return self.installed

    def capabilities(self, arch: str = "") -> Capabilities:
        return Capabilities(self.name, f"{self.name} 1.0", {})


class Hangs(Plug):
    def __init__(self, name: str, until: threading.Event) -> None:
        super().__init__(name)
        self.until = until

    def probe(self) -> Sequence[Device]:
        self.until.wait(30)
        return [Device("npu", "late", self.name)]


class Breaks(Plug):
    def probe(self) -> Sequence[Device]:
        raise RuntimeError("driver/library version mismatch")

    def capabilities(self, arch: str = "") -> Capabilities:
        raise RuntimeError("no table")


class Remarks(Plug):
    def probe(self) -> Sequence[Device]:
        remark("npu-smi is not on PATH")
        return []


@pytest.fixture
def plugs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Plug]:
    """The only backends that there are."""
    found: dict[str, Plug] = {}
    monkeypatch.setattr(registry, "backends", lambda: found)
    return found


def card(bus: str, health: str = "OK", **facts: str) -> Device:
    told = {"pci": bus, "health": health, "chip": "Ascend 910B", **facts}
    return Device("npu", "910B", "ascend", "npu:0", 64 * 2**30, facts=told)


def whole(root: Path, bus: str = "0000:18:00.0") -> None:
    """An Ascend card with driver, node and library."""
    plug_in(root, bus, "19e5:d802", "120000", "ascend_drv")
    for name in ("dev/davinci_manager", "usr/lib64/libascendcl.so"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def only(root: Path) -> Accelerator:
    (found,) = hardware(root=root).accelerators
    return found


def test_a_hanging_probe_costs_its_own_devices_only(plugs, tmp_path: Path) -> None:
    release = threading.Event()
    plugs["slow"] = Hangs("slow", release)
    plugs["quick"] = Plug("quick", [Device("cpu", "CPU", "quick")])

    found = hardware(timeout_s=0.2, root=tmp_path)
    release.set()

    assert [d.name for d in found.devices] == ["CPU"]
    assert found.remarks == {"slow": ("its probe gave no answer within 0.2 s",)}


def test_a_probe_that_raises_is_told(plugs, tmp_path: Path) -> None:
    plugs["cuda"] = Breaks("cuda")

    remarks = hardware(root=tmp_path).remarks

    assert remarks["cuda"] == ("its probe failed: RuntimeError: driver/library version mismatch",)


def test_a_whole_chain_is_usable(plugs, tmp_path: Path) -> None:
    whole(tmp_path)
    plugs["ascend"] = Plug("ascend", [card("0000:18:00.0", driver="24.1.1")])

    found = only(tmp_path)

    assert found.usable
    assert found.name == "Ascend 910B"
    assert [s.name for s in found.chain] == ["pci", "driver", "node", "library", "tool", "toolkit"]
    assert found.why == found.next == ""


def test_a_card_on_the_bus_without_driver_or_tool_is_shown_with_the_reason(
    plugs, tmp_path: Path
) -> None:
    plug_in(tmp_path, "0000:18:00.0", "19e5:d802", "120000")
    plugs["ascend"] = Remarks("ascend", installed="")

    found = only(tmp_path)

    assert not found.usable
    assert found.device is None
    assert "no kernel module" in found.why
    assert "hiascend" in found.next
    assert any("npu-smi is not on PATH" in s.detail for s in found.chain)


def test_a_sick_card_is_not_usable(plugs, tmp_path: Path) -> None:
    whole(tmp_path)
    plugs["ascend"] = Plug("ascend", [card("0000:18:00.0", health="Alarm")])

    assert only(tmp_path).why == "npu-smi says: Alarm"


def test_a_missing_toolkit_names_how_to_get_it(plugs, tmp_path: Path) -> None:
    whole(tmp_path)
    plugs["ascend"] = Plug("ascend", [card("0000:18:00.0")], installed="")

    found = only(tmp_path)

    assert found.why == "the toolkit of backend ascend is not installed here"
    assert "CANN" in found.next


def test_a_card_that_the_bus_hides_is_shown_all_the_same(plugs, tmp_path: Path) -> None:
    plugs["ascend"] = Plug("ascend", [card("0000:18:00.0")])

    found = only(tmp_path)

    assert found.chain[0].ok is None
    assert found.device is not None


def test_cards_are_matched_by_their_address_and_otherwise_in_order(plugs, tmp_path: Path) -> None:
    whole(tmp_path, "0000:18:00.0")
    plug_in(tmp_path, "0000:3b:00.0", "19e5:d802", "120000", "ascend_drv")
    plugs["ascend"] = Plug("ascend", [card("0000:3b:00.0"), card("")])

    first, second = hardware(root=tmp_path).accelerators

    assert first.device is not None
    assert first.device.facts["pci"] == ""
    assert second.device is not None
    assert second.device.facts["pci"] == "0000:3b:00.0"


def test_a_simulator_and_pytorchs_second_view_are_no_accelerators(plugs, tmp_path: Path) -> None:
    plugs["sophon"] = Plug("sophon", [Device("npu", "sim", "sophon", facts={"simulator": "yes"})])
    plugs["torch"] = Plug("torch", [Device("gpu", "NVIDIA L4", "torch", "cuda:0")])

    assert hardware(root=tmp_path).accelerators == ()


def test_the_whole_finding_is_json(plugs, tmp_path: Path) -> None:
    import json

    whole(tmp_path)
    plugs["ascend"] = Plug("ascend", [card("0000:18:00.0")])

    found = json.loads(json.dumps(hardware(root=tmp_path).to_dict()))

    assert found["accelerators"][0]["usable"] is True
    assert found["accelerators"][0]["chain"][0]["step"] == "pci"
    assert found["devices"][0]["facts"]["chip"] == "Ascend 910B"


def test_a_backend_without_a_table_is_a_row_with_its_reason() -> None:
    row = backend_row("cuda", Breaks("cuda"))

    assert row["problem"] == "RuntimeError: no table"


def test_a_backend_row_says_what_it_is_made_of() -> None:
    row = backend_row("ascend", Plug("ascend", installed=""))

    assert row["problem"] == "its toolkit is not installed here"
    assert "CANN" in row["get"]
    assert "Ascend 910" in row["chips"]
    assert {"formats", "alignment", "layouts", "precisions", "collectives", "evidence"} <= set(row)


def test_a_recipe_names_the_command_that_installs_it() -> None:
    assert toolchain("kunlun")[1] == "autoglm toolchain install paddle"
    assert toolchain("nobody") == ("", "")


def test_remarks_are_heard_inside_only() -> None:
    remark("nobody listens")
    with listening() as lines:
        remark("one")
        remark("one")
    remark("again nobody")

    assert lines == ["one"]


def test_where_proc_is_closed_lscpu_is_asked(
    plugs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.json").write_text(sample("lscpu-J"), "utf-8")
    tool = tmp_path / "lscpu"
    tool.write_text(f"#!/bin/sh\n/bin/cat {tmp_path}/out.json\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert hardware(root=tmp_path).cpu.model == "AMD EPYC"
