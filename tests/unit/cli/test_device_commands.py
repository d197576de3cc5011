"""Commands that talk to a device, over the local channel to a real agent."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from edgesdk.cli.app import run
from edgesdk.cli.status import serving_text
from edgesdk.deploy import hold_device
from edgesdk.devices import connect, resolve_device
from edgesdk.testing import make_echo_bundle


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
    assert record["serving"] is None
    assert record["store_bytes"] == 0
    assert record["agent"]["version"]


def test_the_status_reads_well(device, capsys) -> None:
    assert run(["status", device]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("device     local:?state=")
    assert "current    nothing" in lines


def test_the_status_says_what_applications_get() -> None:
    serving = {"bundle": "ab" * 32, "answered": 7, "failed": 1, "waiting": 2, "why_not": None}
    assert serving_text(serving) == (
        "release abababababab, 7 answered and 1 refused since the agent started, 2 waiting"
    )
    serving |= {"bundle": None, "why_not": "it has no runtime"}
    assert serving_text(serving) == (
        "no release is loaded, 7 answered and 1 refused since the agent started, 2 waiting; "
        "the last start failed: it has no runtime"
    )


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


def test_only_a_virtual_board_can_be_set_up(device, capsys) -> None:
    assert run(["devices", "setup", device, "--format", "json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert "it is no virtual board" in error["problem"]
    assert "virtual:arm64" in error["hint"]


def test_a_mistyped_device_is_an_input_error_with_a_suggestion(tmp_path: Path, capsys) -> None:
    inventory = tmp_path / "devices.yaml"
    inventory.write_text("devices:\n  bench-3:\n    url: 'local:'\n", encoding="utf-8")
    assert run(["status", "bench-4", "--inventory", str(inventory)]) == 2
    assert "did you mean bench-3?" in capsys.readouterr().err


def test_a_service_for_a_console_needs_the_console(device, capsys) -> None:
    assert run(["agent", "install", device, "--service"]) == 2
    said = capsys.readouterr().err
    assert "cannot install a service for the console without --console" in said


def test_only_a_serial_line_has_a_console(device, capsys) -> None:
    assert run(["agent", "install", device, "--console"]) == 2
    assert "it is no serial line" in capsys.readouterr().err


def test_the_agent_packs_into_one_file(tmp_path: Path, capsys) -> None:
    out = tmp_path / "agent.pyz"
    record = answer(["agent", "pack", "-o", str(out)], capsys)
    assert record["bytes"] == out.stat().st_size
    assert out.read_bytes()[:2] in (b"PK", b"#!")


@pytest.fixture
def two_releases(device: str, tmp_path: Path, capsys) -> tuple[str, str]:
    """Two releases, deployed one after the other; gives their ids."""
    ids = []
    for name in ("first", "second"):
        bundle = make_echo_bundle(tmp_path / name, name=name)
        folder = str(tmp_path / f"run-{name}")
        args = ["deploy", str(bundle.folder), "--no-bench", "-d", device, "-o", folder]
        record = answer(args, capsys)
        ids.append(record["deployment"]["bundle_id"])
    assert record["deployment"]["outcome"] == "on-probation"
    assert record["deployment"]["probation"]["return_to"] == ids[0]
    return ids[0], ids[1]


def test_probation_shows_in_status_and_releases_and_ends_by_confirming(
    device, two_releases, capsys
) -> None:
    first, second = two_releases
    record = answer(["status", device], capsys)
    assert record["probation"]["bundle"] == second
    assert record["probation"]["watched"] is False
    assert record["returned"] == []
    assert record["holder"] is None
    assert run(["status", device]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"no daemon watches; after 3 failed uses {first[:12]} is current again" in told
    listed = answer(["releases", device], capsys)["releases"]
    states = {each["bundle"]: each["state"] for each in listed}
    assert states == {first: "returned to on failure", second: "on probation"}
    assert run(["confirm", device, "--release", "previous"]) == 5
    assert "is not current" in capsys.readouterr().err
    assert answer(["confirm", device], capsys)["was_on_probation"] is True
    assert answer(["confirm", device], capsys)["was_on_probation"] is False
    assert answer(["status", device], capsys)["probation"] is None


def test_rolling_back_keeps_the_reason(device, two_releases, capsys) -> None:
    first, second = two_releases
    reason = "counts shadows as people"
    record = answer(["rollback", device, "--reason", reason], capsys)
    assert record["current"]["bundle"] == first
    (gone,) = answer(["status", device], capsys)["returned"]
    assert (gone["bundle"], gone["by"], gone["why"]) == (second, "host", reason)
    assert run(["status", device]) == 0
    assert "as a host asked" in capsys.readouterr().out


def test_watching_needs_a_daemon_and_says_so(device, two_releases, tmp_path, capsys) -> None:
    bundle = make_echo_bundle(tmp_path / "third", name="third")
    options = ["--no-bench", "-d", device, "-o", str(tmp_path / "run-third"), "--watch"]
    assert run(["deploy", str(bundle.folder), *options]) == 2
    seen = capsys.readouterr().err
    assert "no daemon runs there" in seen
    assert answer(["status", device], capsys)["current"]["bundle"] == two_releases[1]


def test_release_above_its_latency_limit_stays_out(device, tmp_path, capsys) -> None:
    bundle = make_echo_bundle(tmp_path / "slow", name="slow", options={"delay_ms": 3})
    options = ["--no-bench", "-d", device, "-o", str(tmp_path / "run-slow")]
    assert run(["deploy", str(bundle.folder), *options, "--max-latency", "1ms"]) == 1
    seen = capsys.readouterr().err
    assert "(at most 1.000 ms, as this deployment asks)" in seen
    assert answer(["status", device], capsys)["current"] is None
    answer(["deploy", str(bundle.folder), *options, "--max-latency", "1s"], capsys)


def test_garbage_budget_is_written_as_people_do(device, two_releases, capsys) -> None:
    assert answer(["gc", device, "--budget", "2GB"], capsys)["removed"] == []
    assert run(["gc", device, "--budget", "much"]) == 2
    assert "write it like 2GB" in capsys.readouterr().err


@pytest.mark.slow
def test_deploying_waits_for_another_host_and_says_for_whom(
    device, tmp_path: Path, capsys
) -> None:
    bundle = make_echo_bundle(tmp_path / "one")
    args = ["deploy", str(bundle.folder), "--no-bench", "-d", device, "-o", str(tmp_path / "r")]
    other = connect(resolve_device(device))
    with hold_device(other, doing="a long measurement"):
        assert run(args) == 5
        seen = capsys.readouterr().err
        assert "(a long measurement, for " in seen
        assert "--wait 10min" in seen
        leaving = threading.Timer(5.0, other.close)
        leaving.start()
        assert run([*args, "--wait", "1min"]) == 0
        assert "note: waiting: " in capsys.readouterr().err
        leaving.join()
        other.is_holding = False
