"""What only SSH has: host keys, logins, jump hosts, and a device with nothing on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesdk.devices import connect, resolve_device
from edgesdk.devices.install import install_agent
from edgesdk.errors import AuthError, BootstrapError, ChannelError, HostKeyError, InventoryError
from edgesdk.testing import LocalSshd


@pytest.fixture
def known(home: Path, sshd: LocalSshd) -> Path:
    path = home / ".ssh" / "known_hosts"
    path.write_text(sshd.host_line())
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def url(sshd: LocalSshd, state: Path, **options: str) -> str:
    return sshd.url(**{"state": str(state), "python": sys.executable, **options})


def fingerprint(sshd: LocalSshd) -> str:
    public = str(sshd.host_key.with_suffix(".pub"))
    said = subprocess.run(
        ["ssh-keygen", "-lf", public], capture_output=True, check=True, text=True
    )
    return said.stdout.split()[1]


def test_unknown_host_key_is_refused_with_its_fingerprint_and_what_to_do(
    home: Path, sshd: LocalSshd, state: Path
) -> None:
    with pytest.raises(
        HostKeyError, match="its host key is unknown: it shows ssh-ed25519"
    ) as caught:
        connect(resolve_device(url(sshd, state)))
    assert fingerprint(sshd) in str(caught.value)
    assert f"ssh-keyscan -p {sshd.port} -t ed25519 127.0.0.1" in caught.value.hint
    assert caught.value.exit_code == 4
    assert not (home / ".ssh" / "known_hosts").exists(), "nothing enrols a key by itself"
    assert not state.exists()


def test_enrolling_as_the_hint_says_lets_us_in(
    home: Path, sshd: LocalSshd, state: Path
) -> None:
    with pytest.raises(HostKeyError) as caught:
        connect(resolve_device(url(sshd, state)))
    command = caught.value.hint.rpartition("enrol it: `")[2].rstrip("`")
    subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True)
    with connect(resolve_device(url(sshd, state))) as session:
        assert session.hello.protocol == 1


def test_changed_host_key_is_refused_and_nothing_is_sent(
    known: Path, sshd: LocalSshd, state: Path, tmp_path: Path
) -> None:
    other = LocalSshd(tmp_path / "other")
    line = other.host_line().split()
    known.write_text(f"[127.0.0.1]:{sshd.port} {line[1]} {line[2]}\n")
    with pytest.raises(HostKeyError, match="its host key has changed: it shows") as caught:
        connect(resolve_device(url(sshd, state)))
    assert fingerprint(sshd) in str(caught.value)
    assert f"{known}:1" in str(caught.value)
    assert "ssh-keygen -R" in caught.value.hint
    assert not state.exists()


def test_revoked_host_key_is_refused_though_it_is_also_listed(
    known: Path, sshd: LocalSshd, state: Path
) -> None:
    known.write_text(sshd.host_line() + "@revoked " + sshd.host_line())
    with pytest.raises(HostKeyError, match="is revoked in the known hosts"):
        connect(resolve_device(url(sshd, state)))


def test_wrong_password_is_said(
    known: Path,
    sshd: LocalSshd,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDGESDK_SSH_PASSWORD", "not-the-one")
    with pytest.raises(AuthError, match="wrong password") as caught:
        connect(resolve_device(f"ssh://{sshd.user}@127.0.0.1:{sshd.port}"))
    assert caught.value.exit_code == 4
    assert "not-the-one" not in str(caught.value) + caught.value.hint + str(caught.value.facts)
    assert "not-the-one" not in "".join(capfd.readouterr())


def test_password_is_asked_for_through_the_callback_only(known: Path, sshd: LocalSshd) -> None:
    asked: list[str] = []
    device = resolve_device(f"ssh://{sshd.user}@127.0.0.1:{sshd.port}")
    with pytest.raises(AuthError, match="no key was accepted"):
        connect(device, on_password=asked.append)
    assert asked == [f"password of {sshd.user} on ssh://{sshd.user}@127.0.0.1:{sshd.port}"]


def test_key_that_is_not_let_in_is_named(known: Path, sshd: LocalSshd, tmp_path: Path) -> None:
    stranger = LocalSshd(tmp_path / "stranger").key
    with pytest.raises(AuthError, match=f"no key was accepted .*{stranger}"):
        connect(resolve_device(f"ssh://{sshd.user}@127.0.0.1:{sshd.port}?key={stranger}"))
    with pytest.raises(AuthError, match="cannot use key /nowhere/key: no such file"):
        connect(resolve_device(f"ssh://{sshd.user}@127.0.0.1:{sshd.port}?key=/nowhere/key"))


def test_device_without_that_python_is_told_what_to_install(
    known: Path, sshd: LocalSshd, state: Path
) -> None:
    with pytest.raises(BootstrapError, match="there is no such Python: ") as caught:
        connect(resolve_device(url(sshd, state, python="/nowhere/python3")))
    assert "apt-get install python3" in caught.value.hint


def test_too_old_a_python_is_named_with_the_oldest_that_will_do(
    known: Path, sshd: LocalSshd, state: Path, tmp_path: Path
) -> None:
    old = tmp_path / "python3.6"
    old.write_text(
        f"#!{sys.executable}\nimport sys\nsys.version_info = (3, 6, 9)\nexec(sys.argv[-1])\n"
    )
    old.chmod(0o755)
    with pytest.raises(BootstrapError, match=r"its Python is 3\.6\.9 \(3\.7 or newer\)"):
        connect(resolve_device(url(sshd, state, python=str(old))))


def test_state_folder_that_cannot_be_made_names_the_stage(
    known: Path, sshd: LocalSshd, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BootstrapError, match="stage folder: Not a directory"):
        connect(resolve_device(url(sshd, tmp_path / "file" / "state")))


def test_port_where_nobody_listens_is_refused(home: Path, sshd: LocalSshd) -> None:
    sshd_port = LocalSshd(home / "closed").port
    with pytest.raises(ChannelError, match="connection refused") as caught:
        connect(resolve_device(f"ssh://{sshd.user}@127.0.0.1:{sshd_port}"))
    assert "does an SSH server run there" in caught.value.hint


def test_agent_is_sent_once(known: Path, sshd: LocalSshd, state: Path) -> None:
    with connect(resolve_device(url(sshd, state))):
        pass
    (agent,) = (state / "bin").iterdir()
    written = agent.stat().st_mtime_ns
    with connect(resolve_device(url(sshd, state))):
        pass
    assert agent.stat().st_mtime_ns == written


def test_damaged_agent_is_replaced(known: Path, sshd: LocalSshd, state: Path) -> None:
    with connect(resolve_device(url(sshd, state))):
        pass
    (agent,) = (state / "bin").iterdir()
    good = agent.read_bytes()
    agent.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with connect(resolve_device(url(sshd, state))) as session:
        assert session.hello.protocol == 1
    assert agent.read_bytes() == good


def test_way_leads_through_a_jump_host_that_is_checked_too(
    home: Path, known: Path, sshd: LocalSshd, state: Path
) -> None:
    entry = (
        f" HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.user}\n IdentityFile {sshd.key}\n"
    )
    config = f"Host gateway\n{entry}Host board\n{entry} ProxyJump gateway\n"
    (home / ".ssh" / "config").write_text(config)
    device = resolve_device(f"ssh://board?state={state}&python={sys.executable}")
    with connect(device) as session:
        assert session.hello.protocol == 1
    known.write_text("")
    with pytest.raises(
        HostKeyError, match=r"cannot trust ssh://\S+@gateway:\d+: its host key is un"
    ):
        connect(device)
    (home / ".ssh" / "config").write_text(
        config.replace("HostName", "ProxyJump board\n HostName")
    )
    with pytest.raises((ChannelError, InventoryError), match="more than 8 hosts"):
        connect(device)


@pytest.fixture
def noisy(tmp_path: Path, home: Path) -> Iterator[LocalSshd]:
    """A server whose logins print before anything else, and a lot."""
    command = (
        "ForceCommand yes 'EDGESDK HAVE welcome to the board' | head -c 3000000;"
        ' eval "$SSH_ORIGINAL_COMMAND"'
    )
    with LocalSshd(tmp_path / "noisy", options=[command]) as server:
        (home / ".ssh" / "known_hosts").write_text(server.host_line())
        yield server


def test_megabytes_of_greeting_before_the_agent_cost_nothing(
    noisy: LocalSshd, state: Path
) -> None:
    with connect(resolve_device(url(noisy, state))) as session:
        assert session.hello.protocol == 1


def test_installing_puts_the_agent_at_a_stable_place(
    known: Path, sshd: LocalSshd, state: Path
) -> None:
    done = install_agent(resolve_device(url(sshd, state)))
    assert done.agent == str(state / "edge-agent.pyz")
    assert (state / "edge-agent.pyz").stat().st_size > 10_000
    assert done.unit is not None or "start it with" in str(done)
    assert "run --state" in str(done) or done.unit
