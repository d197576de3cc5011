"""What the configuration says about a host, as plain values."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesdk.errors import InventoryError
from edgesdk.transport.ssh_config import parse_jumps, read_hop


def test_url_goes_before_the_configuration(home: Path) -> None:
    found = {
        "hostname": ["10.0.0.7"],
        "user": ["pi"],
        "port": ["2222"],
        "identityfile": ["~/k"],
    }
    hop = read_hop("board", look_up=lambda _: found)
    assert (hop.host, hop.user, hop.port, hop.keys) == ("10.0.0.7", "pi", 2222, (home / "k",))
    assert hop.name == "ssh://pi@board:2222"
    hop = read_hop("board", "root", 22, key="/other", look_up=lambda _: found)
    assert (hop.user, hop.port, hop.keys) == ("root", 22, (Path("/other"),))
    assert hop.keys_are_chosen
    assert hop.only_these_keys


def test_host_that_is_not_in_the_configuration_gets_the_defaults(home: Path) -> None:
    hop = read_hop("board", "pi", look_up=lambda _: {})
    assert (hop.host, hop.port, hop.jumps, hop.proxy_command) == ("board", 22, (), None)
    assert hop.keys[0] == home / ".ssh" / "id_ed25519"
    assert hop.known_hosts[0] == home / ".ssh" / "known_hosts"
    assert Path("/etc/ssh/ssh_known_hosts") in hop.known_hosts


def test_jumps_are_read_first_to_last() -> None:
    assert parse_jumps("pi@a:2222,b") == (("a", "pi", 2222), ("b", None, None))
    assert parse_jumps("ssh://pi@[::1]:22") == (("::1", "pi", 22),)
    assert parse_jumps("none") == ()


@pytest.mark.parametrize("text", ["", "a b", "a:99999", "a:x", "pi@"])
def test_bad_jump_is_named(text: str) -> None:
    with pytest.raises(InventoryError, match="cannot use ProxyJump"):
        parse_jumps(text)


def lookup(user: str, system: str, host: str, home: Path) -> dict[str, list[str]]:
    from edgesdk.transport.ssh import _read_config

    (home / ".ssh" / "config").write_text(user)
    (home / "ssh_config").write_text(system)
    return _read_config(home / ".ssh" / "config", home / "ssh_config")(host)


def test_included_files_count_where_their_block_does(home: Path) -> None:
    folder = home / ".ssh" / "conf.d"
    folder.mkdir()
    (folder / "a.conf").write_text("Host board\n  User pi\n")
    (folder / "b.conf").write_text("Port 2201\n")
    user = (
        f"Include conf.d/a.conf\nHost lab-* !lab-9\n  Include {folder}/b.conf\n  User root\n"
        "Host *\n  Include ~/.ssh/nothing-here\n"
    )
    assert lookup(user, "", "board", home)["user"] == ["pi"]
    assert "port" not in lookup(user, "", "board", home)
    found = lookup(user, "", "lab-1", home)
    assert (found["port"], found["user"]) == (["2201"], ["root"])
    assert "port" not in lookup(user, "", "lab-9", home)


def test_file_that_includes_itself_ends(home: Path) -> None:
    found = lookup("Include config\nHost board\n User pi\n", "", "board", home)
    assert found["user"] == ["pi"]


def test_users_file_goes_before_the_systems(home: Path) -> None:
    system = "Port 2200\nUser nobody\nHost other\n Port 1\n"
    found = lookup("Host board\n  User pi\n", system, "board", home)
    assert (found["user"], found["port"]) == (["pi"], ["2200"])
    strange = "Match sessiontype shell\n Port 1\n"
    assert lookup("User pi\n", strange, "board", home)["user"] == ["pi"]
