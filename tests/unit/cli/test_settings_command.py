"""``edgesdk settings``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgesdk.cli.app import run
from edgesdk.cli.devicelink import find_device
from edgesdk.settings import resolve_settings


@pytest.fixture(autouse=True)
def own_settings(monkeypatch, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("device: bench-3\n", encoding="utf-8")
    monkeypatch.setenv("EDGESDK_SETTINGS", str(file))
    return file


def test_each_setting_is_shown_with_its_origin(own_settings, monkeypatch, capsys) -> None:
    monkeypatch.setenv("EDGESDK_SSH_PASSWORD", "hunter2")
    assert run(["settings", "--inventory", "boards.yaml", "--format", "json"]) == 0
    seen = capsys.readouterr()
    record = json.loads(seen.out)
    assert record["schema"] == "edgesdk.settings/1"
    found = {each["name"]: (each["value"], each["origin"]) for each in record["settings"]}
    assert found["device"] == ("bench-3", f"file {own_settings}")
    assert found["inventory"] == ("boards.yaml", "flag --inventory")
    assert found["ssh_password"] == ("********", "environment EDGESDK_SSH_PASSWORD")
    assert found["connect_timeout_s"] == (30.0, "default")
    assert "hunter2" not in seen.out + seen.err


def test_a_mistyped_variable_is_mentioned(monkeypatch, capsys) -> None:
    monkeypatch.setenv("EDGESDK_DEVCE", "x")
    assert run(["settings"]) == 0
    assert "EDGESDK_DEVCE sets nothing" in capsys.readouterr().err


def test_a_broken_file_is_an_input_error(own_settings, capsys) -> None:
    own_settings.write_text("devise: x\n", encoding="utf-8")
    assert run(["settings"]) == 2
    seen = capsys.readouterr().err
    assert "unknown key 'devise'" in seen
    assert "did you mean device?" in seen


def test_ssh_client_of_the_settings_goes_into_urls_that_name_none(tmp_path: Path) -> None:
    settings = resolve_settings(
        environ={"EDGESDK_SSH_CLIENT": "paramiko"}, file=tmp_path / "none.yaml"
    )
    assert find_device(settings, "ssh://board").url.query["client"] == "paramiko"
    named = find_device(settings, "ssh://board?client=openssh")
    assert named.url.query["client"] == "openssh"
    assert "client" not in find_device(settings, "local:").url.query
