"""Devices, backends and chips as a user sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_bus import plug_in

from autoglm.catalog import pci
from autoglm.cli import inventory
from autoglm.cli.app import invoke

Capture = pytest.CaptureFixture[str]


def test_a_machine_without_accelerators_says_so_and_why(capsys: Capture) -> None:
    assert invoke(["devices", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["cpu"]["threads"] > 0
    assert {d["backend"] for d in found["devices"]} >= {"onnxruntime", "numpy"}
    assert isinstance(found["accelerators"], list)
    assert isinstance(found["remarks"], dict)


def test_a_card_without_a_driver_is_shown_with_its_chain(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoglm.runtime import hardware

    plug_in(tmp_path, "0000:18:00.0", "19e5:d802", "120000")
    probed = hardware.hardware
    monkeypatch.setattr(hardware, "hardware", lambda: probed(root=tmp_path))

    assert invoke(["devices"]) == 0

    shown = capsys.readouterr().out
    assert "Ascend 910B → ascend: not usable" in shown
    assert "✓ pci: 19e5:d802 at 0000:18:00.0" in shown
    assert "✗ driver: no kernel module" in shown
    assert "→ Install the Ascend driver" in shown


def test_the_catalog_is_listed_with_sources_in_json(capsys: Capture) -> None:
    assert invoke(["devices", "--catalog", "--json"]) == 0

    rows = json.loads(capsys.readouterr().out)
    assert len(rows) >= 40
    h200 = next(row for row in rows if row["name"] == "H200")
    assert h200["memory_bytes"] == 141 * 2**30
    assert "H200" in h200["sources"]["bandwidth_gbps"]


def test_the_catalog_is_a_table(capsys: Capture) -> None:
    assert invoke(["devices", "--catalog"]) == 0

    shown = capsys.readouterr().out
    assert "BM1684X" in shown
    assert "Peaks are dense" in shown


def test_backends_show_capabilities_and_how_to_get_them(capsys: Capture) -> None:
    assert invoke(["backends"]) == 0

    shown = capsys.readouterr().out
    assert "What they take" in shown
    assert "What they need" in shown
    assert "vendor document" in shown or "measured" in shown


def test_nothing_on_the_bus_is_a_sentence(capsys: Capture) -> None:
    inventory._show_accelerators(())

    assert "No accelerator" in capsys.readouterr().out
    assert Path("/") == pci.ROOT
