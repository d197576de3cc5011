"""The inventory: names to devices, strictly read."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.devices.inventory import load_inventory, resolve_device
from edgesdk.errors import InventoryError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "devices.yaml"
    path.write_text(text)
    return path


def test_example_of_the_project_loads(root: Path) -> None:
    devices = load_inventory(root / "configs" / "devices.example.yaml")
    assert {device.url.scheme for device in devices.values()} == {"local", "ssh", "serial"}


def test_name_gives_url_target_and_options(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "devices:\n  bench-3:\n    url: ssh://pi@10.0.0.7\n    target: some-board\n"
        "    python: /usr/bin/python3.9\n    key: ~/.ssh/lab\n",
    )
    device = resolve_device("bench-3", inventory=path)
    assert device.name == "bench-3"
    assert device.target == "some-board"
    assert device.url.host == "10.0.0.7"
    assert dict(device.url.query) == {"key": "~/.ssh/lab", "python": "/usr/bin/python3.9"}


def test_url_needs_no_inventory() -> None:
    assert resolve_device("local:").url.scheme == "local"


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("devices:\n  a: {ulr: 'local:'}", "unknown key devices.a.ulr", "did you mean url?"),
        ("device: {}", "unknown key device", "did you mean devices?"),
        ("devices:\n  a: {url: 3}", "devices.a.url: input should be a valid string", ""),
        ("devices:\n  a: {target: x}", "devices.a.url: field required", ""),
        (
            "devices:\n  a: {url: 'shh://x'}",
            "device a: cannot use device URL 'shh://x'",
            "ssh:?",
        ),
        ("devices:\n  a: {url: 'local:', baud: 9600}", "local URLs have no option 'baud'", ""),
        ("devices:\n  'a b': {url: 'local:'}", "'a b' is no device name", ""),
        ("devices:\n  local: {url: 'local:'}", "'local' is no device name", ""),
        ("[1, 2]", "it holds a list (expected `devices:` at the top)", ""),
        ("a: [", "is not YAML", ""),
        ("a: &x [1]\nb: *x", "line 1 has an anchor or alias (expected plain values)", ""),
        ("!!python/object/apply:os.system [id]", "line 1 has the tag", ""),
    ],
)
def test_bad_inventory_says_what_is_wrong(
    tmp_path: Path, text: str, says: str, hint: str
) -> None:
    with pytest.raises(InventoryError) as caught:
        load_inventory(write(tmp_path, text))
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_unknown_name_is_refused_with_suggestions(tmp_path: Path) -> None:
    path = write(tmp_path, "devices:\n  bench-3: {url: 'local:'}\n")
    with pytest.raises(InventoryError, match="cannot find device 'bench3'") as caught:
        resolve_device("bench3", inventory=path)
    assert caught.value.hint == "did you mean bench-3?"
    with pytest.raises(InventoryError) as caught:
        resolve_device("local")
    assert caught.value.hint == "did you mean local:?"
    with pytest.raises(InventoryError, match="no such file"):
        resolve_device("x", inventory=tmp_path / "missing.yaml")


@given(st.binary(max_size=120))
def test_any_bytes_load_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with contextlib.suppress(InventoryError):
        load_inventory(path)
