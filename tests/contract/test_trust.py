"""Trust from the command line to real agents: signatures, and the key of a serial line."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgesdk.devices import pack_agent
from edgesdk.testing import PtyPair, make_echo_bundle, serial_agent
from tests.contract.typed import Typed

pytestmark = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen here (OpenSSH client)"
)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "id_ed25519"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@home", "-f", str(path)]
    subprocess.run(command, check=True, timeout=60)
    (tmp_path / "signers").write_text(f"me@home {path.with_suffix('.pub').read_text()}")
    return path


@pytest.mark.slow
def test_device_that_demands_signatures(typed: Typed, key: Path, tmp_path: Path) -> None:
    device = f"local:?state={tmp_path / 'state'}"
    old = make_echo_bundle(tmp_path / "old", part=b"old")
    new = make_echo_bundle(tmp_path / "new", part=b"new")
    deploy = ("deploy", "--no-bench", "--device", device)

    shown = typed.ok("trust", "set", device, "--signers", tmp_path / "signers", "--require")
    assert shown["require"] is True
    error = typed.refused(*deploy, old.folder, code=5)
    assert error["problem"].endswith("this device demands a signature, and there is none")
    assert "deploy with --sign KEY" in error["hint"]
    error = typed.refused("trust", "set", device, "--no-require", code=5)
    assert "was set before, and no host may change it" in error["problem"]

    signed = typed.ok("bundle", "sign", old.folder, "--key", key, "--counter", "3")
    assert (signed["counter"], signed["name"]) == (3, "echo")
    receipt = typed.ok(*deploy, old.folder)["deployment"]
    assert receipt["signer"].startswith("me@home (SHA256:")

    typed.ok(*deploy, new.folder, "--sign", key)
    typed.ok("confirm", device)
    error = typed.refused(*deploy, old.folder, code=5)
    assert "its counter is 3, and this device has settled on" in error["problem"]
    assert "--allow-downgrade --sign KEY" in error["hint"]
    typed.refused(*deploy, old.folder, "--allow-downgrade", code=2)
    back = typed.ok(*deploy, old.folder, "--allow-downgrade", "--sign", key)["deployment"]
    assert back["bundle_id"] == old.id

    typed.ok(*deploy, new.folder)
    typed.ok("confirm", device)
    typed.ok("trust", "allow", device, "previous", "--sign", key)
    typed.ok("rollback", device)
    assert typed.ok("status", device)["current"]["bundle"] == old.id
    text = typed.text("trust", "show", device)
    assert "signed bundles only" in text
    assert re.search(r"settled on +echo \d+", text)


def test_signature_in_the_folder_must_be_of_this_bundle(
    typed: Typed, key: Path, tmp_path: Path
) -> None:
    device = f"local:?state={tmp_path / 'state'}"
    typed.ok("trust", "set", device, "--signers", tmp_path / "signers")
    one = make_echo_bundle(tmp_path / "one", part=b"one")
    two = make_echo_bundle(tmp_path / "two", part=b"two")
    typed.ok("bundle", "sign", one.folder, "--key", key)
    for name in ("signed.json", "signed.json.sig"):
        shutil.copy(one.folder / name, two.folder / name)
    error = typed.refused("deploy", "--no-bench", "--device", device, two.folder, code=2)
    assert f"it is about echo {one.id[:12]}" in error["problem"]
    (two.folder / "signed.json").unlink()
    error = typed.refused("deploy", "--no-bench", "--device", device, two.folder, code=2)
    assert "there is no signed.json" in error["problem"]


def test_stock_ssh_keygen_checks_and_makes_what_we_sign(
    typed: Typed, key: Path, tmp_path: Path
) -> None:
    bundle = make_echo_bundle(tmp_path / "bundle")
    typed.ok("bundle", "sign", bundle.folder, "--key", key)
    command = ["ssh-keygen", "-Y", "verify", "-f", str(tmp_path / "signers"), "-I", "me@home"]
    command += ["-n", "bundle@edgesdk", "-s", str(bundle.folder / "signed.json.sig")]
    statement = (bundle.folder / "signed.json").read_bytes()
    subprocess.run(command, input=statement, check=True, capture_output=True, timeout=30)


@pytest.mark.parametrize("given", ["gone", "signers"])
def test_what_is_no_key_is_named(typed: Typed, key: Path, tmp_path: Path, given: str) -> None:
    bundle = make_echo_bundle(tmp_path / "bundle")
    error = typed.refused("bundle", "sign", bundle.folder, "--key", tmp_path / given, code=2)
    assert error["problem"].startswith(f"cannot sign with {tmp_path / given}: ")
    assert error["hint"]
    assert not (bundle.folder / "signed.json").exists()


def test_key_in_an_ssh_agent_signs(
    typed: Typed, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_echo_bundle(tmp_path / "bundle")
    socket = tmp_path / "agent.sock"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        error = typed.refused("bundle", "sign", bundle.folder, "--key", "agent", code=2)
        assert "it holds no key" in error["problem"]
        subprocess.run(["ssh-add", "-q", str(key)], check=True, timeout=30, capture_output=True)
        key.unlink()
        typed.ok("bundle", "sign", bundle.folder, "--key", "agent", "--counter", "1")
        typed.ok("bundle", "sign", bundle.folder, "--key", f"{key}.pub", "--counter", "2")
        assert '"counter":2' in (bundle.folder / "signed.json").read_text()
    finally:
        agent.terminate()
        agent.wait(10)
        assert agent.stdout is not None
        agent.stdout.close()


def test_line_with_a_key(typed: Typed, tmp_path: Path) -> None:
    """From making the key to a deployment under seal; the key is shown nowhere."""
    state, key_file, pyz = tmp_path / "state", tmp_path / "line.key", tmp_path / "agent.pyz"
    pyz.write_bytes(pack_agent().data)
    assert "edge-agent trust key --from" in typed.text("trust", "key", key_file)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    typed.refused("trust", "key", key_file, code=2)
    key = key_file.read_text().strip()
    command = [sys.executable, str(pyz), "trust", "key", "--state", str(state)]
    done = subprocess.run(
        [*command, "--from", str(key_file)], check=True, capture_output=True, timeout=30
    )
    typed.shown += done.stdout.decode() + done.stderr.decode()
    bundle = make_echo_bundle(tmp_path / "bundle", part=bytes(range(256)) * 40)
    with PtyPair() as line, serial_agent(line.device_path, state):
        url = f"serial://{line.host_path}?baud=921600"
        error = typed.refused("status", url, code=4)
        assert "it asks for the key of its line" in error["problem"]

        other = tmp_path / "other.key"
        typed.ok("trust", "key", other)
        error = typed.refused("status", f"{url}&key={other}", code=4)
        assert "that is not the key of this line" in error["problem"]

        other.chmod(0o644)
        error = typed.refused("status", f"{url}&key={other}", code=4)
        assert "others may read it (mode 644)" in error["problem"]

        (tmp_path / "devices.yaml").write_text(
            f"devices:\n  bench:\n    url: {url}\n    key: {key_file}\n"
        )
        at = ("--inventory", tmp_path / "devices.yaml")
        typed.ok("deploy", "--no-bench", "--device", "bench", *at, bundle.folder)
        assert typed.ok("status", "bench", *at)["current"]["bundle"] == bundle.id
        logs = "\n".join(path.read_text() for path in (state / "logs").iterdir())
    assert "frames without proof were refused" in logs
    for secret in (key, other.read_text().strip()):
        assert secret not in typed.shown + logs
