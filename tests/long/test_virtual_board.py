"""Real ARM code: bundles for both runtimes run on an emulated board, over each kind of link.

The board is an arm64 system that identifies as aarch64; it is made once and kept under
``.cache``. Its agent is reached as a child process, through a real SSH server whose sessions
end in the board, and over a pseudo terminal. What the emulator takes is printed, not judged.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesdk.deploy import deploy_bundle
from edgesdk.devices import connect, resolve_device
from edgesdk.errors import BootstrapError, TargetMismatch
from edgesdk.profiles.catalog import find_target
from edgesdk.testing import (
    LocalSshd,
    PtyPair,
    VirtualBoard,
    board_serial_agent,
    make_echo_bundle,
    set_up_board,
    why_no_board,
    write_login_program,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "demo"
TARGET = "generic-aarch64"


@pytest.fixture
def board(home: Path, monkeypatch: pytest.MonkeyPatch) -> VirtualBoard:
    """The board, made by the first test that wants it, and kept for the next run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(ROOT / ".cache"))
    if (reason := why_no_board()) is not None:
        pytest.skip(f"needs a virtual board: {reason}")
    made = set_up_board(on_note=print)
    print(f"board: made={made.made} in {made.seconds:.1f} s, {made.size_bytes >> 20} MiB")
    return made


#: A command on a board takes some 15 s here; a few stand still, see `Stalled`.
STALLED_S = 150.0


class Stalled(Exception):
    """What ran in the emulator stood still.

    Seen with qemu-user 7.2 a few times in some hundred deployments to a daemon on a line, never
    without an emulator; the cause is unknown. So such a deployment is tried once more on a new
    board, and what the agent's threads waited for is printed.
    """


def edgesdk(*arguments: str | Path) -> dict[str, Any]:
    """Run the command line for JSON and give its document.

    Raises:
        Stalled: It did not end, or the device had not done its part in time.
    """
    command = [sys.executable, "-m", "edgesdk.cli", *map(str, arguments), "--format", "json"]
    env = os.environ | {"EDGESDK_REQUEST_TIMEOUT_S": "100"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=env, timeout=STALLED_S
        )
    except subprocess.TimeoutExpired as exc:
        told = exc.stderr.decode(errors="replace") if isinstance(exc.stderr, bytes) else ""
        raise Stalled(f"{' '.join(command[2:])} took over {STALLED_S:g} s: {told}") from exc
    if done.returncode in (4, 5):
        raise Stalled(done.stderr)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The digits network as int8 for each runtime, by the runtime's name."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {}
    for runtime, backend in (("onnxruntime", "ort-cpu"), ("litert", "litert-cpu")):
        made[runtime] = folder / runtime
        edgesdk(
            *("build", DEMO / "digits_cnn.onnx", "--calib", DEMO / "calib.npz"),
            *("--target", TARGET, "--backend", backend, "-o", made[runtime]),
        )
    return made


@contextlib.contextmanager
def told_if_stalled(daemon: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
    """Print what every thread of the daemon waits for, where the block stalled."""
    try:
        yield
    except Stalled:
        daemon.send_signal(signal.SIGUSR1)
        time.sleep(2.0)
        print(log.read_text(errors="replace"))
        raise


@contextlib.contextmanager
def way_to(name: str, board: VirtualBoard, folder: Path, home: Path) -> Iterator[str]:
    """Give the URL of the board behind that kind of link."""
    disk = folder / "disk"
    if name == "local":
        yield f"virtual:{board.name}?state={disk}"
    elif name == "serial":
        with (
            PtyPair() as line,
            board_serial_agent(line.device_path, board, disk) as daemon,
            told_if_stalled(daemon, disk / "daemon.log"),
        ):
            yield f"serial://{line.host_path}?baud=921600"
    else:
        login = write_login_program(folder / "login", board, disk)
        with LocalSshd(folder / "sshd", options=[f"ForceCommand {login}"]) as server:
            (home / ".ssh" / "known_hosts").write_text(server.host_line())
            yield server.url()


@pytest.mark.parametrize("way", ["local", "ssh", "serial"])
def test_both_runtimes_run_on_arm_over_every_link(
    way: str, board: VirtualBoard, bundles: dict[str, Path], tmp_path: Path, home: Path
) -> None:
    if way == "ssh" and (reason := LocalSshd.why_not()) is not None:
        pytest.skip(f"needs an SSH server: {reason}")
    try:
        deploy_both(way, board, bundles, tmp_path / "first", home)
    except Stalled as exc:
        print(f"once more, after: {exc}")
        deploy_both(way, board, bundles, tmp_path / "second", home)


def deploy_both(
    way: str, board: VirtualBoard, bundles: dict[str, Path], tmp_path: Path, home: Path
) -> None:
    """Deploy a bundle for each runtime to a new board, look at what came, and go back."""
    tmp_path.mkdir()
    with way_to(way, board, tmp_path, home) as url:
        sent = {}
        for runtime, bundle in bundles.items():
            out = tmp_path / f"run-{runtime}"
            began = time.monotonic()
            result = edgesdk(
                *("deploy", bundle, "--device", url, "--runs", "40", "-o", out),
                *("--max-latency", "10s"),  # an emulator's times say nothing of a release
            )
            took_s = time.monotonic() - began
            report = result["report"]
            (part,) = report["parts"]
            assert part["runtime"] == runtime
            assert (
                part["runtime_version"].split()[-1]
                == board.versions[{"litert": "ai_edge_litert"}.get(runtime, runtime)]
            )
            assert report["deployment"]["self_check_passed"]
            assert report["accuracy"]["host_check"]["passed"]
            assert report["device"]["machine"] == "aarch64"
            assert report["conditions"]["static"]["emulated"] == "qemu-user"
            assert any("emulated" in note for note in report["conditions"]["notes"])
            assert "is emulated (qemu-user)" in (out / "report.html").read_text()
            sent[runtime] = result["bundle"]["id"]
            print(
                f"{way} {runtime}: {took_s:.1f} s whole, deployed in "
                f"{report['deployment']['seconds']:.1f} s, p50 {report['latency']['p50_ms']} ms"
            )
        status = edgesdk("status", url)
        assert status["current"]["bundle"] == sent["litert"]
        assert status["previous"]["bundle"] == sent["onnxruntime"]
        edgesdk("rollback", url)
        assert edgesdk("status", url)["current"]["bundle"] == sent["onnxruntime"]


def test_the_board_is_an_arm_board_and_no_x86_target(
    board: VirtualBoard, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    device = resolve_device(f"virtual:{board.name}?state={disk}")
    x86 = find_target("intel-npu-core-ultra-2")
    bundle = make_echo_bundle(tmp_path / "bundle", part=os.urandom(4096), target=x86.name)
    with connect(device) as session:
        with pytest.raises(TargetMismatch, match="its machine is aarch64"):
            deploy_bundle(bundle, session, device=device, profile=x86)
    stored = [
        path for path in disk.rglob("*") if path.is_file() and path.stat().st_size == 4096
    ]
    assert not stored, "bytes were sent to a device that is not the target"
    facts = edgesdk("devices", "facts", str(device.url))
    assert facts["facts"]["machine"] == "aarch64"
    assert facts["facts"]["emulated"] == "qemu-user"
    assert facts["facts"]["devices"] == []
    assert TARGET in facts["targets"]


def test_nothing_that_is_mounted_for_a_board_is_left_outside(board: VirtualBoard) -> None:
    mounts = Path("/proc/self/mounts").read_text()
    assert str(board.folder.path) not in mounts


def test_a_broken_board_is_noticed_and_made_anew(board: VirtualBoard, tmp_path: Path) -> None:
    runtime = next(board.folder.path.rglob("onnxruntime_pybind11_state*.so"))
    whole = runtime.stat().st_size
    with runtime.open("r+b") as file:
        file.truncate(whole // 2)
    device = resolve_device(f"virtual:{board.name}?state={tmp_path / 'disk'}")
    with pytest.raises(
        BootstrapError, match=f"{runtime.name} has {whole // 2} bytes"
    ) as caught:
        connect(device)
    assert f"edgesdk devices setup virtual:{board.name}" in caught.value.hint
    left = board.folder.path.parent / f".{board.name}.1.partial"
    shutil.rmtree(left, ignore_errors=True)
    (left / "scratch").mkdir(parents=True)
    answer = edgesdk("devices", "setup", f"virtual:{board.name}")
    assert answer["made"]
    assert answer["versions"]["machine"] == "aarch64"
    assert not left.exists()
    assert not edgesdk("devices", "setup", f"virtual:{board.name}")["made"]
    with connect(device) as session:
        assert session.hello.machine == "aarch64"


def test_the_faster_of_both_runtimes_wins_by_measurement_and_both_are_shown(
    board: VirtualBoard, tmp_path: Path
) -> None:
    url, out = f"virtual:{board.name}?state={tmp_path / 'disk'}", tmp_path / "run"
    options = ["--calib", DEMO / "calib.npz", "--runs", "60", "--duration", "6", "-o", out]
    model = DEMO / "digits_cnn.onnx"
    result = edgesdk("deploy", model, "--target", TARGET, "--device", url, *options)
    contest = result["report"]["contest"]
    assert contest["emulated"] == "qemu-user"
    assert [each["backend"] for each in contest["contestants"]] == ["ort-cpu", "litert-cpu"]
    for each in contest["contestants"]:
        assert each["why_out"] == ""
        assert len(each["rounds"]) >= 6
        assert each["latency"]["p50_ms"] > 0
        print(f"{each['backend']}: p50 {each['latency']['p50_ms']:.1f} ms, {each['rounds']}")
    print(contest["why"])
    (won,) = (e for e in contest["contestants"] if e["backend"] == contest["winner"])
    assert result["bundle"]["id"] == result["report"]["bundle"]["id"] == won["bundle"]["id"]
    assert edgesdk("status", url)["current"]["bundle"] == won["bundle"]["id"]
