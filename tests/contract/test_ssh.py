"""What only SSH has: host keys, logins, jump hosts, and a device with nothing on it."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import paramiko  # noqa: TID251 - as a server of another age
import pytest

from edgesdk.deploy import deploy_bundle
from edgesdk.devices import connect, resolve_device
from edgesdk.devices.agentpack import save_agent
from edgesdk.devices.install import install_agent
from edgesdk.errors import AuthError, BootstrapError, ChannelError, HostKeyError, InventoryError
from edgesdk.testing import LocalSshd, make_echo_bundle
from edgesdk.transport import ssh, ssh_clients
from edgesdk.transport.url import parse_device_url


@pytest.fixture(params=["openssh", "paramiko"], autouse=True)
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What carries the connections: the same holds for either."""
    monkeypatch.setattr(ssh_clients, "SSH_CLIENTS", (request.param,))  # its first is taken
    return str(request.param)


#: For what the OpenSSH client leaves to paramiko: it asks nobody for anything.
asking = pytest.mark.parametrize("client", ["auto", "paramiko"], indirect=True)


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


@asking
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


@asking
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


def entry(name: str, server: LocalSshd, *lines: str) -> str:
    wanted = [
        "HostName 127.0.0.1",
        f"Port {server.port}",
        f"User {server.user}",
        f"IdentityFile {server.key}",
        *lines,
    ]
    return f"Host {name}\n" + "".join(f"  {line}\n" for line in wanted)


def test_jump_host_is_a_server_of_its_own_with_its_own_keys(
    home: Path, sshd: LocalSshd, state: Path, tmp_path: Path
) -> None:
    config, known = home / ".ssh" / "config", home / ".ssh" / "known_hosts"
    with LocalSshd(tmp_path / "gateway") as gateway:
        config.write_text(entry("gateway", gateway) + entry("board", sshd, "ProxyJump gateway"))
        known.write_text(gateway.host_line() + sshd.host_line())
        device = resolve_device(f"ssh://board?state={state}&python={sys.executable}")
        with connect(device) as session:
            assert session.hello.protocol == 1
        assert "Accepted publickey" in gateway.log.read_text()
        known.write_text(gateway.host_line())
        with pytest.raises(HostKeyError, match=r"@board:\d+: its host key is unknown"):
            connect(device)
        known.write_text(sshd.host_line())
        with pytest.raises(HostKeyError, match=r"@gateway:\d+: its host key is unknown"):
            connect(device)
        known.write_text(gateway.host_line() + sshd.host_line())
        config.write_text(
            entry("gateway", gateway, f"IdentityFile {sshd.key}").replace(
                f"IdentityFile {gateway.key}\n", ""
            )
            + entry("board", sshd, "ProxyJump gateway")
        )
        with pytest.raises(AuthError, match=r"cannot log in to ssh://\S+@gateway:\d+"):
            connect(device)
    with pytest.raises(ChannelError, match=r"cannot reach ssh://\S+@gateway:\d+"):
        connect(device)


def test_board_that_the_jump_host_cannot_reach_is_named(
    home: Path, sshd: LocalSshd, tmp_path: Path
) -> None:
    (home / ".ssh" / "known_hosts").write_text(sshd.host_line())
    closed = LocalSshd(tmp_path / "closed")
    (home / ".ssh" / "config").write_text(
        entry("gateway", sshd) + entry("board", closed, "ProxyJump gateway")
    )
    with pytest.raises(ChannelError, match=r"cannot reach ssh://\S+@board:\d+"):
        connect(resolve_device("ssh://board"))


def test_proxy_command_is_run_and_ended(
    home: Path, known: Path, sshd: LocalSshd, state: Path, tmp_path: Path, client: str
) -> None:
    script = tmp_path / "proxy.py"
    script.write_text(PROXY)
    config = home / ".ssh" / "config"
    config.write_text(
        entry("board", sshd, f"ProxyCommand {sys.executable} {script} {tmp_path}/pid %h %p")
    )
    device = resolve_device(f"ssh://board?state={state}&python={sys.executable}")
    with connect(device) as session:
        assert session.hello.protocol == 1
        pid = int((tmp_path / "pid").read_text())
        assert Path(f"/proc/{pid}").exists()
    if client == "paramiko":
        assert not Path(f"/proc/{pid}").exists(), "not even as a zombie"
    else:  # the client leaves it to init to collect it
        deadline = time.monotonic() + 10
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_running(pid)
    config.write_text(entry("board", sshd, "ProxyCommand /nowhere/proxy %h"))
    with pytest.raises(
        ChannelError, match=r"cannot run the ProxyCommand for .*(No such file|not found)"
    ):
        connect(device)


def is_running(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return words[0] != "Z"


PROXY = """
import os, select, socket, sys
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
link = socket.create_connection((sys.argv[2], int(sys.argv[3])))
while True:
    ready, _, _ = select.select([0, link], [], [])
    if 0 in ready:
        data = os.read(0, 65536)
        if not data:
            break
        link.sendall(data)
    if link in ready:
        data = link.recv(65536)
        if not data:
            break
        os.write(1, data)
"""


@asking
def test_passphrase_of_a_key_is_asked_for_and_a_wrong_one_named(
    home: Path, known: Path, sshd: LocalSshd, state: Path, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.write_bytes(sshd.key.read_bytes())
    locked.chmod(0o600)
    change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "sesame", "-f", str(locked)]
    subprocess.run(change, check=True, capture_output=True)
    device = resolve_device(url(sshd, state, key=str(locked)))
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "sesame"

    with connect(device, on_password=answer) as session:
        assert session.hello.protocol == 1
    assert asked == [f"passphrase of {locked}"]
    with pytest.raises(AuthError, match=f"cannot use key {locked}: ") as caught:
        connect(device, on_password=lambda prompt: "wrong")
    assert "passphrase right" in caught.value.hint
    with pytest.raises(AuthError, match="it has a passphrase") as caught:
        connect(device)
    assert "ssh-add" in caught.value.hint


@asking
def test_key_of_the_ssh_agent_lets_us_in_and_no_passphrase_is_asked_for(
    home: Path, known: Path, sshd: LocalSshd, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("ssh-agent") is None:
        pytest.skip("needs ssh-agent: install openssh-client")
    locked = home / ".ssh" / "id_ed25519"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "other", "-f", str(locked)]
    subprocess.run(make, check=True, capture_output=True)
    with tempfile.TemporaryDirectory() as folder:  # socket paths have to be short
        path = f"{folder}/agent"
        agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", path],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 10
            while not Path(path).exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            monkeypatch.setenv("SSH_AUTH_SOCK", path)
            add = ["ssh-add", "-q", str(sshd.key)]
            subprocess.run(add, check=True, capture_output=True)
            device = resolve_device(
                f"ssh://{sshd.user}@127.0.0.1:{sshd.port}?state={state}&python={sys.executable}"
            )
            asked: list[str] = []
            with connect(device, on_password=asked.append) as session:
                assert session.hello.protocol == 1
            assert asked == []
            (home / ".ssh" / "config").write_text("Host *\n  IdentitiesOnly yes\n")
            with pytest.raises(AuthError):
                connect(device, on_password=asked.append)
            assert asked[0] == f"passphrase of {locked}"
        finally:
            agent.terminate()
            agent.wait(10)


def test_server_without_strict_key_exchange_is_noted(home: Path, tmp_path: Path) -> None:
    key = LocalSshd(tmp_path / "keys")
    with lax_server(key) as port:
        line = key.host_line().replace(f":{key.port}", f":{port}")
        (home / ".ssh" / "known_hosts").write_text(line)
        address = parse_device_url(f"ssh://pi@127.0.0.1:{port}?key={key.key}")
        route = ssh._connect(address, timeout_s=10, on_password=None)
        try:
            assert "does not offer strict key exchange" in route.notes[0]
        finally:
            route.close()


def test_server_with_strict_key_exchange_is_not_noted(
    known: Path, sshd: LocalSshd, state: Path
) -> None:
    with connect(resolve_device(url(sshd, state))) as session:
        assert session.notes == ()


@contextlib.contextmanager
def lax_server(keys: LocalSshd) -> Iterator[int]:
    """An SSH server of the years before strict key exchange, that lets everybody in."""

    class Everybody(paramiko.ServerInterface):
        def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
            return paramiko.AUTH_SUCCESSFUL

        def get_allowed_auths(self, username: str) -> str:
            return "publickey"

    def serve() -> None:
        connection, _ = listener.accept()
        transport = paramiko.Transport(connection, strict_kex=False)
        transport.daemon = True
        transport.add_server_key(paramiko.PKey.from_path(keys.host_key))
        transport.start_server(server=Everybody())
        ended.wait(20)
        transport.close()
        transport.join(5)

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join(10)


def test_state_folder_that_others_may_write_to_runs_nothing(
    known: Path, sshd: LocalSshd, state: Path
) -> None:
    state.mkdir()
    (state / "bin").mkdir()
    state.chmod(0o777)
    with pytest.raises(BootstrapError, match=r"stage folder: .* others may write there"):
        connect(resolve_device(url(sshd, state)))
    assert list((state / "bin").iterdir()) == []


def test_empty_folder_of_the_users_may_be_the_state_folder(
    known: Path, sshd: LocalSshd, state: Path
) -> None:
    state.mkdir(mode=0o755)
    with connect(resolve_device(url(sshd, state))) as session:
        assert session.hello.protocol == 1
    assert state.stat().st_mode & 0o077 == 0


def test_daemon_of_another_age_is_used_and_noted(
    known: Path, sshd: LocalSshd, state: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.pyz"
    package = save_agent(old)
    with zipfile.ZipFile(old, "a") as archive:
        archive.writestr("edge_agent/earlier.py", "")
    command = [sys.executable, "-I", "-S", str(old), "run", "--state", str(state)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as daemon:
        try:
            assert daemon.stderr is not None
            assert daemon.stderr.readline() == b"edge-agent: ready\n"
            device = resolve_device(url(sshd, state))
            with connect(device) as session:
                assert session.hello.daemon
                receipt = deploy_bundle(
                    make_echo_bundle(tmp_path / "b"), session, device=device
                )
        finally:
            daemon.terminate()
    assert receipt.slot == "current"
    assert receipt.agent_sha256 == hashlib.sha256(old.read_bytes()).hexdigest()
    (note,) = receipt.notes
    assert receipt.agent_sha256[:12] in note
    assert package.sha256[:12] in note
    assert "`edgesdk agent install`" in note
