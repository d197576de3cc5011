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
