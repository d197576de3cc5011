"""Device URLs are read strictly, and never hold or show a password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.errors import InventoryError
from edgesdk.transport.url import SSH_CLIENTS, parse_device_url


@pytest.mark.parametrize(
    "text",
    [
        "local:",
        "local:?state=/tmp/x%20y&python=/usr/bin/python3.9",
        "ssh://pi@10.0.0.7",
        "ssh://board:2222?key=/k&state=/s",
        "ssh://pi@[fe80::1]:22",
        "serial:///dev/ttyUSB0?baud=921600&rtscts=1",
        "serial:///dev/ttyUSB0?baud=115200&max_baud=3000000",
        "virtual:arm64",
        "virtual:arm64?state=/tmp/x%20y",
        "virtual:vm?link=uart",
    ],
)
def test_url_survives_being_written_and_read(text: str) -> None:
    url = parse_device_url(text)
    assert parse_device_url(str(url)) == url


def test_parts_are_where_they_belong() -> None:
    url = parse_device_url("ssh://pi@board:2222?key=/k")
    assert (url.scheme, url.user, url.host, url.port) == ("ssh", "pi", "board", 2222)
    assert dict(url.query) == {"key": "/k"}
    assert parse_device_url("serial:///dev/ttyUSB0").path == "/dev/ttyUSB0"


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("shh://x", "there is no scheme 'shh'", "did you mean ssh:?"),
        ("http://x", "there is no scheme 'http'", "device URLs look like"),
        ("ssh://", "it names no host", "ssh://user@host:port"),
        ("ssh://host/path", "the path '/path' has no meaning", "ssh://user@host:port"),
        ("ssh://-oProxyCommand=x@h", "the user is", "ssh://user@host:port"),
        ("ssh://h?kye=/k", "ssh URLs have no option 'kye'", "did you mean key=?"),
        ("ssh://h?key=/k&key=/l", "option 'key' is given twice", "one value"),
        ("ssh://h?key=", "option 'key' is empty", "one value"),
        ("ssh://h:99999", "port out of range", "device URLs look like"),
        ("ssh://h?python=python3;reboot", "option 'python' is 'python3;reboot'", "plain"[:0]),
        ("ssh://h?python=-c", "option 'python' is '-c'", ""),
        ("ssh://h?python=$(id)", "option 'python' is", ""),
        ("local:/tmp", "the path '/tmp' has no meaning", "local:?state=FOLDER"),
        ("local://host", "local URLs have no host", "write local:"),
        ("serial://dev/ttyUSB0", "serial URLs have no host", "three slashes"),
        ("serial:", "it names no port", "serial:///dev/ttyUSB0"),
        ("serial:///dev/x?baud=fast", "option 'baud' is 'fast'", "115200"),
        ("serial:///dev/x?max_baud=0", "option 'max_baud' is '0'", "max_baud=115200"),
        ("virtual:", "there is no virtual board ''", "write virtual:arm64"),
        ("virtual:amr64", "there is no virtual board 'amr64'", "write virtual:arm64"),
        ("virtual:../arm64", "there is no virtual board '../arm64'", "write virtual:arm64"),
        ("virtual://arm64", "virtual URLs have no host", "write virtual:arm64"),
        (
            "virtual:vm?link=usb",
            "option 'link' is 'usb' (expected ssh or uart)",
            "leave it out",
        ),
        ("virtual:arm64?python=/x", "virtual URLs have no option 'python'", "remove python="),
        ("serial:///dev/x?rtscts=yes", "option 'rtscts' is 'yes'", "rtscts=1"),
    ],
)
def test_bad_url_says_what_is_wrong(text: str, says: str, hint: str) -> None:
    with pytest.raises(InventoryError) as caught:
        parse_device_url(text)
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(InventoryError, match="it has a password in it") as caught:
        parse_device_url("ssh://pi:hunter2@board")
    assert "hunter2" not in str(caught.value) + caught.value.hint + repr(caught.value.facts)


def test_control_characters_are_refused_and_not_repeated() -> None:
    with pytest.raises(InventoryError, match="control character") as caught:
        parse_device_url("ssh://pi@board\x1b[31m")
    assert "\x1b" not in str(caught.value)


@given(
    st.text(max_size=80)
    | st.from_regex(r"(ssh|local|serial|virtual):[ -~]{0,60}", fullmatch=True)
)
def test_whatever_is_typed_gives_a_url_or_an_inventory_error(text: str) -> None:
    try:
        url = parse_device_url(text)
    except InventoryError:
        return
    assert parse_device_url(str(url)) == url


def test_serial_urls_name_the_user_of_a_console() -> None:
    url = parse_device_url("serial://root@/dev/ttyUSB0?baud=9600&python=python3.9")
    assert (url.user, url.path, url.host) == ("root", "/dev/ttyUSB0", None)
    assert parse_device_url(str(url)) == url
    for text in (
        "serial://root@host/dev/ttyUSB0",
        "serial://-x@/dev/tty",
        "serial://@/dev/tty",
    ):
        with pytest.raises(InventoryError):
            parse_device_url(text)
    with pytest.raises(InventoryError, match="it has a password in it"):
        parse_device_url("serial://root:secret@/dev/ttyUSB0")


def test_client_of_an_ssh_url_is_one_of_those_there_are() -> None:
    for client in SSH_CLIENTS:
        assert parse_device_url(f"ssh://pi@board?client={client}").query["client"] == client
    with pytest.raises(InventoryError, match="expected auto, openssh, paramiko"):
        parse_device_url("ssh://pi@board?client=putty")
    with pytest.raises(InventoryError, match="have no option 'client'"):
        parse_device_url("local:?client=openssh")
