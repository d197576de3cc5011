"""What the OpenSSH client's log says becomes the error that paramiko would give."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesdk.errors import (
    AuthError,
    ChannelError,
    ChannelTimeout,
    EdgeError,
    HostKeyError,
)
from edgesdk.transport.openssh_log import login_error, read_login
from edgesdk.transport.ssh_config import Hop

HEARD = "debug1: Remote protocol version 2.0, remote software version OpenSSH_9.9\r\n"
KEY = "debug1: Server host key: ssh-ed25519 SHA256:" + "A" * 43 + "\r\n"


def hop(**changes: object) -> Hop:
    fields: dict[str, object] = {
        "name": "ssh://pi@board",
        "host": "10.0.0.7",
        "port": 22,
        "user": "pi",
        "keys": (),
        "keys_are_chosen": False,
        "only_these_keys": False,
        "key_alias": None,
        "known_hosts": (Path("/nowhere/known_hosts"),),
        "jumps": (),
        "proxy_command": None,
    }
    return Hop(**{**fields, **changes})  # type: ignore[arg-type]  # the fields above


def failure(
    tmp_path: Path, text: str, stderr: str = "", **changes: object
) -> tuple[EdgeError, bool]:
    log = tmp_path / "0.log"
    log.write_bytes(text.encode())
    return login_error(read_login(log), hop(**changes), stderr=stderr)


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        (
            "ssh: connect to host 10.0.0.7 port 22: Connection refused",
            ChannelError,
            "cannot reach ssh://pi@board: connection refused",
        ),
        (
            "ssh: connect to host 10.0.0.7 port 22: Connection timed out",
            ChannelTimeout,
            "cannot reach ssh://pi@board: no answer in time",
        ),
        (
            "ssh: connect to host 10.0.0.7 port 22: No route to host",
            ChannelError,
            "cannot reach ssh://pi@board: no route to host",
        ),
        (
            "ssh: Could not resolve hostname board: Name or service not known",
            ChannelError,
            "cannot reach ssh://pi@board: no such host: Name or service not known",
        ),
    ],
)
def test_host_that_is_not_reached_is_sure(
    tmp_path: Path, line: str, kind: type[EdgeError], said: str
) -> None:
    error, is_sure = failure(tmp_path, f"debug1: Connecting\r\n{line}\r\n")
    assert type(error) is kind
    assert str(error) == said
    assert is_sure
    assert error.hint


def test_server_of_another_age_is_told_from_one_that_is_away(tmp_path: Path) -> None:
    line = (
        "Unable to negotiate with 10.0.0.7 port 22: no matching cipher found. Their offer: 3des"
    )
    error, is_sure = failure(tmp_path, HEARD + line)
    assert "no matching cipher found" in str(error)
    assert "too old" in error.hint
    assert not is_sure, "another client may know what this one does not"


def test_keys_that_were_offered_are_named(tmp_path: Path) -> None:
    first = f"/home/me/.ssh/my key ED25519 SHA256:{'B' * 43} explicit"
    text = (
        f"{HEARD}debug1: Offering public key: {first}\r\n"
        f"debug1: Offering public key: me@home RSA SHA256:{'C' * 43} agent\r\n"
        "pi@10.0.0.7: Permission denied (publickey,password).\r\n"
    )
    error, is_sure = failure(tmp_path, text)
    assert isinstance(error, AuthError)
    assert error.facts["tried"] == ["/home/me/.ssh/my key", f"ssh-agent SHA256:{'C' * 43}"]
    assert "cannot log in to ssh://pi@board as pi: no key was accepted" in str(error)
    assert is_sure
    error, _ = failure(tmp_path, HEARD + "pi@10.0.0.7: Permission denied (password).\r\n")
    assert "it takes only password" in str(error)


def test_host_key_that_is_refused_is_shown_with_the_command_that_enrols_it(
    tmp_path: Path,
) -> None:
    error, is_sure = failure(tmp_path, HEARD + KEY + "Host key verification failed.\r\n")
    assert isinstance(error, HostKeyError)
    assert "its host key is unknown: it shows ssh-ed25519 SHA256:AAAA" in str(error)
    assert "ssh-keyscan" in error.hint
    assert is_sure


def test_key_that_the_client_refuses_though_it_is_on_file_stays_refused(tmp_path: Path) -> None:
    why = "Host key ED25519 SHA256:A revoked by file /home/me/.ssh/revoked"
    error, is_sure = failure(tmp_path, f"{HEARD}{why}\r\nHost key verification failed.\r\n")
    assert isinstance(error, HostKeyError)
    assert why in str(error)
    assert is_sure, "another client would let it in"


def test_what_is_told_of_every_connection_explains_no_loss(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_text(
        'Authenticated to board ([10.0.0.7]:22) using "publickey".\n'
        "Transferred: sent 3480, received 3328 bytes, in 0.4 seconds\n"
        "Bytes per second: sent 9744.7, received 9319.1\n"
        "debug1: Exit status -1\n"
    )
    login = read_login(log)
    assert login.logged_in
    assert login.words == ()


def test_proxy_command_that_fails_is_what_the_error_names(tmp_path: Path) -> None:
    error, _ = failure(
        tmp_path,
        "kex_exchange_identification: Connection closed by remote host\r\n",
        stderr="warning\nsh: 1: exec: /nowhere/proxy: not found",
        proxy_command="/nowhere/proxy",
    )
    assert "cannot run the ProxyCommand for ssh://pi@board: sh: 1: exec: /nowhere" in str(error)


def test_log_without_a_word_or_without_end_is_read(tmp_path: Path) -> None:
    error, _ = failure(tmp_path, "")
    assert isinstance(error, ChannelTimeout)
    assert not read_login(tmp_path / "none").logged_in
    (tmp_path / "long").write_bytes(b"x" * (2 << 20) + b"\nAuthenticated to a\n")
    assert not read_login(tmp_path / "long").logged_in, "what is over a limit is not read"


@pytest.mark.parametrize(
    ("line", "strict"),
    [("", False), ("debug1: ssh_packet_read_poll2: resetting read seqnr 3\n", True)],
)
def test_strict_key_exchange_is_seen(tmp_path: Path, line: str, strict: bool) -> None:
    log = tmp_path / "0.log"
    log.write_text(f"{line}debug1: SSH2_MSG_NEWKEYS received\nAuthenticated to board.\n")
    login = read_login(log)
    assert login.logged_in
    assert login.strict_kex is strict
