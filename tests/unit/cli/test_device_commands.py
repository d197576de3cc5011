"""Commands that talk to a device, over the local channel to a real agent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgesdk.cli.app import run


@pytest.fixture(autouse=True)
def nobodys_settings(monkeypatch, tmp_path: Path) -> None:
    for variable in ("EDGESDK_DEVICE", "EDGESDK_INVENTORY", "EDGESDK_SETTINGS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def device(tmp_path: Path) -> str:
    return f"local:?state={tmp_path / 'state'}"


def answer(args: list[str], capsys) -> dict:
    assert run([*args, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_status_of_an_empty_device_has_every_field_of_the_contract(device, capsys) -> None:
    record = answer(["status", device], capsys)
    assert record["schema"] == "edgesdk.status/1"
    assert record["current"] is None
    assert record["previous"] is None
    assert record["candidate"] is None
    assert record["worker"] is None
    assert record["store_bytes"] == 0
    assert record["agent"]["version"]


def test_the_status_reads_well(device, capsys) -> None:
    assert run(["status", device]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("device     local:?state=")
    assert "current    nothing" in lines


def test_an_empty_device_has_no_releases_and_says_what_to_do(device, capsys) -> None:
    assert run(["releases", device]) == 0
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "put one there with edgesdk deploy" in seen.err


def test_there_is_nothing_to_roll_back_to_on_an_empty_device(device, capsys) -> None:
    assert run(["rollback", device, "--format", "json"]) == 5
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["exit_code"] == 5
    assert "previous" in error["problem"]


def test_collecting_on_an_empty_device_removes_nothing(device, capsys) -> None:
    record = answer(["gc", device], capsys)
    assert record["removed"] == []
    assert record["freed_bytes"] == 0


def test_a_ping_says_how_long_it_took(device, capsys) -> None:
    record = answer(["devices", "ping", device], capsys)
    assert record["connect_ms"] > 0
    assert record["agent"]["machine"]


def test_facts_name_the_targets_that_the_device_is(device, capsys) -> None:
    record = answer(["devices", "facts", device], capsys)
    assert record["facts"]["machine"]
    assert isinstance(record["targets"], list)


def test_logs_are_lines(device, capsys) -> None:
    record = answer(["devices", "logs", device, "--lines", "5"], capsys)
    assert len(record["lines"]) <= 5


def test_devices_are_listed_from_the_inventory(tmp_path: Path, capsys) -> None:
    inventory = tmp_path / "devices.yaml"
    inventory.write_text(
        "devices:\n  bench-3:\n    url: ssh://pi@10.0.0.7\n    target: raspberry-pi-5\n",
        encoding="utf-8",
    )
    record = answer(["devices", "list", "--inventory", str(inventory)], capsys)
    assert record["devices"] == [
        {"name": "bench-3", "url": "ssh://pi@10.0.0.7", "target": "raspberry-pi-5"}
    ]


def test_a_mistyped_device_is_an_input_error_with_a_suggestion(tmp_path: Path, capsys) -> None:
    inventory = tmp_path / "devices.yaml"
    inventory.write_text("devices:\n  bench-3:\n    url: 'local:'\n", encoding="utf-8")
    assert run(["status", "bench-4", "--inventory", str(inventory)]) == 2
    assert "did you mean bench-3?" in capsys.readouterr().err


def test_the_agent_packs_into_one_file(tmp_path: Path, capsys) -> None:
    out = tmp_path / "agent.pyz"
    record = answer(["agent", "pack", "-o", str(out)], capsys)
    assert record["bytes"] == out.stat().st_size
    assert out.read_bytes()[:2] in (b"PK", b"#!")
