"""Settings: precedence, origin, types, and what is said of a wrong one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgesdk.errors import SettingsError
from edgesdk.settings import (
    OPTIONS,
    Settings,
    resolve_settings,
    settings_file,
    unknown_variables,
)


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def by_name(name: str):
    return next(option for option in OPTIONS if option.name == name)


def test_every_option_is_a_field_of_the_resolved_settings() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)} - {"origins"}
    assert fields == {option.name for option in OPTIONS}
    assert all(option.help and option.help[0].islower() for option in OPTIONS)


def test_a_missing_file_gives_the_defaults(tmp_path: Path) -> None:
    settings = resolve_settings(environ={}, file=tmp_path / "none.yaml")
    assert settings.device == "local:"
    assert settings.runs_dir == Path("edgesdk-runs")
    assert settings.connect_timeout_s == 30.0
    assert settings.ssh_password is None
    assert set(settings.origins.values()) == {"default"}


def test_flag_beats_environment_beats_file_beats_default(write) -> None:
    file = write("device: from-file\nconnect_timeout_s: 5\nrequest_timeout_s: 6\n")
    environ = {"EDGESDK_DEVICE": "from-env", "EDGESDK_CONNECT_TIMEOUT_S": "7.5"}
    settings = resolve_settings({"device": "from-flag"}, environ=environ, file=file)
    assert settings.device == "from-flag"
    assert settings.origins["device"] == "flag --device"
    assert settings.connect_timeout_s == 7.5
    assert settings.origins["connect_timeout_s"] == "environment EDGESDK_CONNECT_TIMEOUT_S"
    assert settings.request_timeout_s == 6.0
    assert settings.origins["request_timeout_s"] == f"file {file}"
    assert settings.origins["inventory"] == "default"


def test_a_flag_that_is_none_was_not_given(tmp_path: Path) -> None:
    settings = resolve_settings({"device": None}, environ={}, file=tmp_path / "none.yaml")
    assert settings.origins["device"] == "default"


def test_paths_know_the_home_folder(write) -> None:
    settings = resolve_settings(environ={}, file=write("inventory: ~/boards.yaml\n"))
    assert settings.inventory == Path.home() / "boards.yaml"


def test_an_unknown_key_is_refused_with_a_suggestion(write) -> None:
    file = write("invntory: x.yaml\n")
    with pytest.raises(SettingsError, match="unknown key 'invntory'") as caught:
        resolve_settings(environ={}, file=file)
    assert caught.value.hint.startswith("did you mean inventory or history? settings are ")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1e9", "nan", "true", "[1]"])
def test_a_time_that_is_none_is_refused_with_its_origin(write, value: str) -> None:
    file = write(f"connect_timeout_s: {value}\n")
    with pytest.raises(SettingsError) as caught:
        resolve_settings(environ={}, file=file)
    assert str(caught.value).startswith(
        f"cannot use setting connect_timeout_s from file {file}: "
    )
    assert str(caught.value).endswith("(expected a positive number of seconds)")


@pytest.mark.parametrize("line", ["device: 7", "device: [a]", "inventory: 7", "device: ''"])
def test_a_value_of_another_type_is_refused(write, line: str) -> None:
    with pytest.raises(SettingsError, match=r"\(expected (text|a path)\)"):
        resolve_settings(environ={}, file=write(line + "\n"))


def test_a_secret_shows_neither_in_tables_nor_errors_nor_repr(write) -> None:
    settings = resolve_settings(environ={"EDGESDK_SSH_PASSWORD": "hunter2"}, file=write(""))
    assert settings.ssh_password == "hunter2"
    assert settings.shown(by_name("ssh_password")) == "********"
    assert "hunter2" not in repr(settings)
    with pytest.raises(SettingsError) as caught:
        resolve_settings(environ={}, file=write("ssh_password: [hunter2]\n"))
    assert "hunter2" not in str(caught.value) + caught.value.hint


def test_a_setting_with_choices_takes_no_other(write) -> None:
    assert resolve_settings(environ={}, file=write("")).ssh_client == "auto"
    assert resolve_settings(environ={"EDGESDK_SSH_CLIENT": "openssh"}).ssh_client == "openssh"
    with pytest.raises(SettingsError, match="expected auto, openssh or paramiko"):
        resolve_settings(environ={}, file=write("ssh_client: putty\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "it holds a list"),
        ("a: [", "not YAML"),
        ("a: !!python/object:x.y {}", "not"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(write, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        resolve_settings(environ={}, file=write(text))


def test_a_file_of_other_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot read settings"):
        resolve_settings(environ={}, file=path)


def test_a_file_named_by_the_environment_has_to_exist(tmp_path: Path) -> None:
    environ = {"EDGESDK_SETTINGS": str(tmp_path / "gone.yaml")}
    assert settings_file(environ) == tmp_path / "gone.yaml"
    with pytest.raises(SettingsError, match=r"gone\.yaml: no such file"):
        resolve_settings(environ=environ)


def test_a_mistyped_variable_is_noticed() -> None:
    environ = {
        "EDGESDK_DEVCE": "x",
        "EDGESDK_DEVICE": "x",
        "EDGESDK_SETTINGS": "x",
        "HOME": "/",
    }
    assert unknown_variables(environ) == ("EDGESDK_DEVCE",)


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2 << 30), ("500 MiB", 500 << 20), ("7KiB", 7168), ("0", 0)]
)
def test_a_size_may_have_a_unit(text: str, size: int) -> None:
    assert resolve_settings(environ={"EDGESDK_CACHE_SIZE": text}).cache_size == size


@pytest.mark.parametrize("text", ["2GB", "-1", "much", "1.5GiB", "9" * 16])
def test_a_size_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve_settings(environ={"EDGESDK_CACHE_SIZE": text})
    assert "(expected a number of bytes, or one with KiB, MiB or GiB)" in str(caught.value)
