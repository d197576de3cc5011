"""What only the OpenSSH client could do wrong: obey the configuration where it must not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from edgesdk.devices import connect, resolve_device
from edgesdk.devices.install import install_agent
from edgesdk.errors import AuthError, ChannelError, HostKeyError, InventoryError
from edgesdk.testing import LocalSshd
from edgesdk.transport.openssh import OpensshChannel
from edgesdk.transport.openssh_way import hop_log
from edgesdk.transport.ssh import SshChannel

LAX = (
    "StrictHostKeyChecking no",
    "NoHostAuthenticationForLocalhost yes",
    "UpdateHostKeys yes",
    "VerifyHostKeyDNS yes",
    "CheckHostIP yes",
)


@pytest.fixture
def config(home: Path) -> Path:
    return home / ".ssh" / "config"


@pytest.fixture
def known(home: Path, sshd: LocalSshd) -> Path:
    path = home / ".ssh" / "known_hosts"
    path.write_text(sshd.host_line())
    return path


def entry(name: str, server: LocalSshd, *lines: str) -> str:
    wanted = ["HostName 127.0.0.1", f"Port {server.port}", f"User {server.user}", *lines]
    return f"Host {name}\n" + "".join(
        f"  {line}\n" for line in [*wanted, f"IdentityFile {server.key}"]
    )


def url(tmp_path: Path, host: str = "board", client: str = "openssh") -> str:
    return f"ssh://{host}?state={tmp_path}/state&python={sys.executable}&client={client}"


def test_lax_configuration_does_not_let_an_unknown_host_in(
    home: Path, config: Path, sshd: LocalSshd, tmp_path: Path
) -> None:
    config.write_text(entry("board", sshd, *LAX))
    with pytest.raises(HostKeyError, match="its host key is unknown"):
        connect(resolve_device(url(tmp_path)))
    assert not (home / ".ssh" / "known_hosts").exists(), "nothing enrols a key by itself"
    assert not (tmp_path / "state").exists()


def test_lax_configuration_does_not_let_an_unknown_jump_host_in(
    home: Path, config: Path, sshd: LocalSshd, tmp_path: Path
) -> None:
    with LocalSshd(tmp_path / "gateway") as gateway:
        config.write_text(
            entry("gateway", gateway, *LAX)
            + entry("board", sshd, "ProxyJump gateway", *LAX)
            + "Host *\n  StrictHostKeyChecking accept-new\n"
        )
        (home / ".ssh" / "known_hosts").write_text(sshd.host_line())
        with pytest.raises(HostKeyError, match=r"@gateway:\d+: its host key is unknown"):
            connect(resolve_device(url(tmp_path)))
        assert "Accepted publickey" not in gateway.log.read_text()


def test_key_that_only_a_command_vouches_for_does_not_count(
    home: Path, config: Path, sshd: LocalSshd, tmp_path: Path
) -> None:
    line = home / "line"
    line.write_text(sshd.host_line())
    config.write_text(entry("board", sshd, f"KnownHostsCommand /bin/cat {line}"))
    with pytest.raises(HostKeyError, match="its host key is unknown"):
        connect(resolve_device(url(tmp_path)))


def test_key_that_only_an_authority_vouches_for_does_not_count(
    home: Path, config: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "certified"
    certificate = folder / "host_ed25519-cert.pub"
    with LocalSshd(folder, options=[f"HostCertificate {certificate}"]) as server:
        server.stop()
        sign = ["ssh-keygen", "-q", "-s", str(server.key), "-I", "board", "-h"]
        public = server.host_key.with_suffix(".pub")
        subprocess.run([*sign, str(public)], check=True, capture_output=True)
        server.start()
        authority = server.key.with_suffix(".pub").read_text()
        (home / ".ssh" / "known_hosts").write_text(
            f"@cert-authority [127.0.0.1]:{server.port} {authority}"
        )
        config.write_text(entry("board", server))
        with pytest.raises(HostKeyError, match="its host key is unknown"):
            connect(resolve_device(url(tmp_path)))


def test_connection_that_others_opened_is_not_shared(
    config: Path, sshd: LocalSshd, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # socket paths have to be short
        shared = f"{folder}/shared"
        config.write_text(entry("board", sshd, f"ControlPath {shared}", "ControlMaster auto"))
        words = ["ssh", "-F", str(config), "-N", "-oControlMaster=yes"]
        words += ["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "board"]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL) as master:
            try:
                deadline = time.monotonic() + 20
                while not Path(shared).exists() and time.monotonic() < deadline:
                    time.sleep(0.02)
                assert Path(shared).exists()
                with pytest.raises(HostKeyError, match="its host key is unknown"):
                    connect(resolve_device(url(tmp_path)))
            finally:
                master.terminate()


@pytest.mark.usefixtures("known")
def test_nothing_else_that_the_configuration_asks_for_happens(
    home: Path, config: Path, sshd: LocalSshd, tmp_path: Path
) -> None:
    touched, shared = tmp_path / "touched", home / "shared"
    config.write_text(
        entry(
            "board",
            sshd,
            "PermitLocalCommand yes",
            f"LocalCommand /usr/bin/touch {touched}",
            "RemoteCommand /bin/false",
            "RequestTTY force",
            "ControlMaster auto",
            f"ControlPath {shared}",
            "ControlPersist 60",
            "LocalForward 127.0.0.1:1 127.0.0.1:1",
            "ExitOnForwardFailure yes",
            "LogLevel QUIET",
            "Ciphers 3des-cbc,aes128-cbc",
        )
    )
    with connect(resolve_device(url(tmp_path))) as session:
        assert session.hello.protocol == 1
        assert isinstance(session.channel, OpensshChannel)
        assert not shared.exists(), "a shared connection obeys the rules of who opened it"
    assert not touched.exists()


@pytest.mark.usefixtures("known")
def test_client_and_its_files_are_gone_when_the_session_is(
    sshd: LocalSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    device = resolve_device(
        sshd.url(state=tmp_path / "state", python=sys.executable, client="openssh")
    )
    with connect(device) as session:
        assert isinstance(session.channel, OpensshChannel)
        pid = session.channel.pid
        assert len(list(folder.iterdir())) == 1
    assert not Path(f"/proc/{pid}").exists()
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("known")
def test_auto_goes_on_without_a_client_that_is_not_there(
    sshd: LocalSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    options = {"state": tmp_path / "state", "python": sys.executable}
    with connect(resolve_device(sshd.url(**options))) as session:
        assert isinstance(session.channel, SshChannel)
    with pytest.raises(ChannelError, match="there is no ssh program on PATH"):
        connect(resolve_device(sshd.url(**options, client="openssh")))


@pytest.mark.usefixtures("known")
def test_auto_goes_on_with_a_configuration_that_the_client_does_not_take(
    config: Path, sshd: LocalSshd, tmp_path: Path
) -> None:
    config.write_text(entry("board", sshd, "NoSuchOptionAnywhere yes"))
    with pytest.raises(InventoryError, match=r"cannot look up board .*onfiguration option"):
        connect(resolve_device(url(tmp_path)))
    with connect(resolve_device(url(tmp_path, client="auto"))) as session:
        assert isinstance(session.channel, SshChannel)


@pytest.mark.usefixtures("known")
def test_secrets_in_our_environment_stay_out_of_the_clients(
    sshd: LocalSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESDK_SSH_PASSWORD", "hunter2")
    device = resolve_device(
        sshd.url(state=tmp_path / "state", python=sys.executable, client="openssh")
    )
    with connect(device) as session:
        assert isinstance(session.channel, OpensshChannel)
        environment = Path(f"/proc/{session.channel.pid}/environ").read_bytes()
        command = Path(f"/proc/{session.channel.pid}/cmdline").read_bytes()
    assert b"HOME=" in environment
    assert b"hunter2" not in environment + command


@pytest.mark.usefixtures("known")
def test_locked_key_is_not_asked_for_but_said(sshd: LocalSshd, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.write_bytes(sshd.key.read_bytes())
    locked.chmod(0o600)
    change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "sesame", "-f", str(locked)]
    subprocess.run(change, check=True, capture_output=True)
    device = resolve_device(sshd.url(key=locked, client="openssh"))
    with pytest.raises(AuthError, match="no key was accepted"):
        connect(device, on_password=lambda prompt: "sesame")


@pytest.mark.parametrize("host", ["-oProxyCommand=touch${IFS}x", "-F/tmp/x"])
def test_jump_host_that_looks_like_an_option_is_refused(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config.write_text(f"Host board\n  HostName 127.0.0.1\n  ProxyJump {host}\n")
    with pytest.raises(InventoryError):
        connect(resolve_device(url(tmp_path)))
    assert list(tmp_path.glob("x*")) == []


@pytest.mark.usefixtures("known")
def test_folders_with_odd_names_are_passed_through_every_hop(
    home: Path, sshd: LocalSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "100% $HOME 'quoted'"
    odd.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    (home / ".ssh" / "config").write_text(
        entry("gateway", sshd) + entry("board", sshd, "ProxyJump gateway")
    )
    with connect(resolve_device(url(tmp_path))) as session:
        assert session.hello.protocol == 1
        assert isinstance(session.channel, OpensshChannel)
        folder = session.channel._folder
        assert folder.parent == odd
        assert all("Authenticated" in hop_log(folder, n).read_text() for n in (0, 1))


@pytest.mark.usefixtures("known")
def test_agent_is_installed_through_it(sshd: LocalSshd, tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = install_agent(
        resolve_device(sshd.url(state=state, python=sys.executable, client="openssh"))
    )
    assert done.agent == str(state / "edge-agent.pyz")
    assert os.access(done.agent, os.R_OK)
