"""A machine with a kernel, a disk and a UART of its own, reached over both of its links."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgesdk.deploy import deploy_bundle
from edgesdk.devices import connect, read_status, resolve_device
from edgesdk.errors import BootstrapError
from edgesdk.testing import (
    VirtualBoard,
    VirtualMachine,
    make_echo_bundle,
    set_up_board,
    why_no_board,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "demo"
CONNECT_S = 180.0


@pytest.fixture
def board(home: Path, monkeypatch: pytest.MonkeyPatch) -> VirtualBoard:
    """The machine's files, made by the first test that wants them, and kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(ROOT / ".cache"))
    if (reason := why_no_board("vm")) is not None:
        pytest.skip(f"needs a virtual machine: {reason}")
    made = set_up_board("vm", on_note=print)
    print(f"machine: made={made.made} in {made.seconds:.1f} s, {made.size_bytes >> 20} MiB")
    return made


def edgesdk(*arguments: str | Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "edgesdk.cli", *map(str, arguments), "--format", "json"]
    # a processor in software is slow, and may share its core with much else
    slow = {"EDGESDK_REQUEST_TIMEOUT_S": "240", "EDGESDK_CONNECT_TIMEOUT_S": "180"}
    env = os.environ | slow
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_model_runs_in_the_machine_over_ssh_and_another_comes_over_its_uart(
    board: VirtualBoard, tmp_path: Path, home: Path
) -> None:
    with VirtualMachine(board, tmp_path / "machine") as machine:
        (home / ".ssh" / "known_hosts").write_text(machine.host_line())
        model = [DEMO / "digits_cnn.onnx", "--calib", DEMO / "calib.npz"]
        out = tmp_path / "run"
        result = edgesdk(
            "deploy", *model, "--device", machine.ssh_url, "--runs", "20", "-o", out
        )
        (part,) = result["report"]["parts"]
        assert part["runtime"] == "onnxruntime"
        assert part["runtime_version"].split()[-1] == board.versions["onnxruntime"]
        assert result["report"]["deployment"]["self_check_passed"]
        assert result["report"]["device"]["machine"] == "x86_64"
        assert result["report"]["conditions"]["static"]["emulated"] == "qemu-system"
        device = resolve_device(machine.uart_url)
        bundle = make_echo_bundle(tmp_path / "echo", part=os.urandom(20_000))
        with connect(device, timeout_s=CONNECT_S) as session:
            assert session.hello.daemon
            before = read_status(session)["slots"]["current"]["bundle"]
            assert before == result["bundle"]["id"], "both links lead to one agent"
            assert deploy_bundle(bundle, session, device=device).slot == "current"
        machine.shut_down()
        machine.boot()
        with connect(resolve_device(machine.uart_url), timeout_s=CONNECT_S) as session:
            slots = read_status(session)["slots"]
            assert slots["current"]["bundle"] == bundle.id
            assert slots["previous"]["bundle"] == before


@pytest.mark.parametrize("link", ["ssh", "uart"])
def test_the_url_alone_starts_a_machine_and_ends_it(
    link: str, board: VirtualBoard, tmp_path: Path
) -> None:
    url = f"virtual:vm?state={tmp_path / 'disk'}&link={link}"
    with connect(resolve_device(url), timeout_s=CONNECT_S) as session:
        assert session.hello.machine == "x86_64"
        with pytest.raises(BootstrapError, match="one runs already on the disk"):
            connect(resolve_device(url))
    answer = edgesdk("devices", "ping", url)
    assert answer["agent"]["daemon"]
