"""A device that offers a login on its console and nothing else gets the agent through it."""

from __future__ import annotations

import os
import random
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesdk.devices.agentpack import pack_agent
from edgesdk.devices.connect import connect
from edgesdk.devices.install import Installed, install_over_console
from edgesdk.devices.inventory import Device, resolve_device
from edgesdk.errors import AuthError, BootstrapError, EdgeError, InventoryError, LinkError
from edgesdk.progress import Progress
from tests.agent.agent_driver import find_python
from tests.console_device import (
    ALICE,
    PASSWORD,
    ConsoleDevice,
    console_device,
    open_folder,
    why_no_console,
)

pytestmark = pytest.mark.skipif(why_no_console() is not None, reason=str(why_no_console()))
#: The getty's namespace has the system's own files, so this one is there for every user.
PYTHON = "/usr/bin/python3"
#: Those that are here are tried; busybox edits lines and echoes them itself, as /bin/sh.
SHELLS = ("dash", "busybox", "csh", "tcsh", "fish", "zsh", "mksh")


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


@pytest.fixture
def board(folder: Path) -> Iterator[ConsoleDevice]:
    with console_device(folder, shell="/bin/bash") as device:
        yield device


def at(
    board: ConsoleDevice, *, user: str = "alice", python: str = PYTHON, more: str = ""
) -> Device:
    url = f"serial://{user}@{board.host_path}?python={python}&max_baud=115200{more}"
    return resolve_device(url, inventory=None)


def install(device: Device, *passwords: str, **options: Any) -> Installed:
    left = list(passwords or (PASSWORD,))
    return install_over_console(
        device, on_password=lambda _: left.pop(0) if left else None, **options
    )


@pytest.mark.slow
def test_agent_comes_through_a_login_and_serves_the_line(
    board: ConsoleDevice, folder: Path
) -> None:
    home = folder / "alice"
    (home / ".bash_profile").write_text(
        "echo Welcome, your password: is safe\n"
        r"export PS1='\[\e]0;\u\a\e[32m\]\u@\h \[\e[0m\]\342\235\257 '" + "\n"
    )
    seen: list[Progress] = []
    done = install(at(board), on_progress=seen.append)
    state = home / ".local" / "state" / "edgesdk" / "agent"
    package = pack_agent()
    assert (done.sha256, done.running, done.unit) == (package.sha256, True, None)
    assert (done.state, done.python) == (str(state), PYTHON)
    placed = Path(done.agent)
    assert placed.read_bytes() == package.data
    assert stat.S_IMODE(placed.stat().st_mode) == 0o600
    assert placed.stat().st_uid == ALICE
    assert sorted(path.name for path in placed.parent.iterdir()) == [placed.name]
    sent = [each for each in seen if each.step == "send agent"]
    assert sent[0].done == 0
    assert sent[-1].done == sent[-1].total
    assert PASSWORD.encode() not in board.seen
    with connect(at(board)) as session:
        assert session.hello.agent_sha256 == package.sha256
        assert session.request("facts", {}).meta["facts"]["state_dir"] == str(state)


@pytest.mark.long
def test_root_without_a_password_keeps_a_login_beside_the_agent(board: ConsoleDevice) -> None:
    install(at(board, user="root"), "never asked for")
    seen = len(board.seen)
    time.sleep(0.7)
    board.type(b"\r")
    wait_for(lambda: b"login: " in board.seen[seen:])
    board.type(b"alice\r")
    wait_for(lambda: b"assword: " in board.seen[seen:])
    error = why_not(at(board))
    assert "an edgesdk agent serves this line already" in str(error)
    with connect(at(board)) as session:  # in the middle of somebody's login
        assert session.request("ping", {}).meta["ok"]


def wait_for(is_so: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.long
def test_kernel_messages_and_flipped_bits_cost_only_time(
    board: ConsoleDevice, folder: Path
) -> None:
    chance = random.Random(7)
    noisy = threading.Event()

    def flip(data: bytes) -> bytes:
        if not noisy.is_set():
            return data
        return bytes(
            b ^ (1 << chance.randrange(8) if chance.random() < 2e-4 else 0) for b in data
        )

    def log_in_and_then_flip(data: bytes) -> bytes:
        if b'["LOADER"]' in data:
            noisy.set()
        return flip(data)

    over = threading.Event()

    def print_messages() -> None:
        number = 0
        while not over.wait(0.02):
            number += 1
            board.say(b"\r\n[%5d.%06d] usb 1-1: reset high-speed\r\n" % (number, number))

    board.to_device = flip
    board.to_host = log_in_and_then_flip
    messages = threading.Thread(target=print_messages)
    messages.start()
    try:
        done = install(at(board))
    finally:
        over.set()
        messages.join()
    assert Path(done.agent).read_bytes() == pack_agent().data
    assert b"usb 1-1" in board.seen


@pytest.mark.long
def test_cable_that_comes_out_costs_what_was_under_way(
    board: ConsoleDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgesdk.transport import console_push

    monkeypatch.setattr(console_push, "_STALL_S", 1.5)
    total = []

    def cut(progress: Progress) -> None:
        if progress.step == "send agent":
            total.append(progress)
            if progress.done > 40_000:
                board.to_device = lambda _: b""

    with pytest.raises(BootstrapError, match=r"the device took no piece for 1\.5 s"):
        install(at(board), on_progress=cut)
    got = max(each.done for each in total)
    board.to_device = None
    total.clear()
    done = install(at(board), on_progress=total.append)
    began = next(each for each in total if each.step == "send agent")
    assert 0 <= got - began.done <= 480 * 6, "it began anew"
    assert Path(done.agent).read_bytes() == pack_agent().data


@pytest.mark.long
def test_agent_that_is_there_already_is_not_sent(board: ConsoleDevice, folder: Path) -> None:
    folder = folder / "alice" / ".local" / "state" / "edgesdk" / "agent" / "bin"
    package = pack_agent()
    for path in (*reversed(folder.parents[:5]), folder):
        path.mkdir(exist_ok=True, mode=0o700)
        os.chown(path, ALICE, ALICE)
    there = folder / f"agent-{package.sha256[:16]}.pyz"
    there.write_bytes(package.data)
    os.chown(there, ALICE, ALICE)
    seen: list[Progress] = []
    install(at(board), on_progress=seen.append)
    assert {each.done for each in seen if each.step == "send agent"} == {
        next(each.total for each in seen if each.step == "send agent")
    }


@pytest.mark.long
def test_wrong_password_is_said_and_kept_to_ourselves(board: ConsoleDevice) -> None:
    left = ["wr0ng"]
    with pytest.raises(AuthError) as caught:
        install_over_console(at(board), on_password=lambda _: left.pop() if left else None)
    text = str(caught.value) + caught.value.hint + repr(caught.value.facts)
    assert "it asks for the password of alice" in text
    assert "wr0ng" not in text
    assert install(at(board)).running
    assert b"wr0ng" not in board.seen


def why_not(device: Device, **options: Any) -> EdgeError:
    with pytest.raises(LinkError) as caught:
        install(device, **options)
    return caught.value


@pytest.mark.long
def test_device_without_a_fitting_python_says_what_is_missing(
    board: ConsoleDevice, folder: Path
) -> None:
    missing = why_not(at(board, python="/usr/bin/python3.99"))
    assert "there is no /usr/bin/python3.99; there are " in str(missing)
    assert "/usr/bin/python3" in str(missing)
    assert "apt-get install python3" in missing.hint

    home = folder / "alice"
    small = home / "small-python"
    small.write_text(
        f'#!/bin/sh\nexec {PYTHON} -c \'import sys; sys.modules["ctypes"] = None; '
        'del sys.argv[0]; exec(sys.argv[-1])\' "$@"\n'
    )
    small.chmod(0o755)
    lacking = why_not(at(board, python=str(small)))
    assert "stage modules: its Python lacks ctypes" in str(lacking)
    assert "install the whole of Python" in lacking.hint

    ends = home / "ends"
    ends.write_text("#!/bin/sh\nexit 9\n")
    ends.chmod(0o755)
    assert f"{ends} ends with 9" in str(why_not(at(board, python=str(ends))))


@pytest.mark.long
def test_python_that_is_too_old_is_named(board: ConsoleDevice, folder: Path) -> None:
    old = find_python("3.6") or find_python("2.7")
    if old is None:
        pytest.skip("there is no Python older than 3.7 here")
    error = why_not(at(board, user="root", python=old))
    assert re.search(r"its Python is (3\.6|2\.7)\.\d+ \(3\.7 or newer\)", str(error))


@pytest.mark.long
def test_state_folder_that_is_not_ours_is_refused(board: ConsoleDevice, folder: Path) -> None:
    taken = folder / "taken"
    taken.mkdir(mode=0o777)
    taken.chmod(0o777)
    error = why_not(at(board, more=f"&state={taken}"))
    assert "stage folder: " in str(error)
    full = why_not(at(board, more="&state=/proc/nowhere"))
    assert "stage folder: No such file" in str(full)


@pytest.mark.long
def test_service_needs_root_and_systemd(board: ConsoleDevice) -> None:
    error = why_not(at(board), service=True)
    assert "stage service: only root can install it, and this is user 4242" in str(error)
    assert "log in as root" in error.hint
    if not Path("/run/systemd/system").is_dir():
        error = why_not(at(board, user="root"), service=True)
        assert "stage service: no systemd runs there" in str(error)


@pytest.mark.long
def test_service_is_installed_and_takes_the_line(folder: Path) -> None:
    with console_device(folder, with_systemd=True) as board:
        done = install(at(board, user="root"), service=True)
        name = board.device_path.removeprefix("/dev/").replace("/", "-")
        asked = (folder / "asked").read_text().splitlines()
        with connect(at(board)) as session:
            hello = session.hello
    unit = f"edge-agent-console@{name}.service"
    assert asked == ["daemon-reload", f"enable {unit}", f"restart --no-block {unit}"]
    assert done.unit == "/etc/systemd/system/edge-agent-console@.service"
    assert hello.agent_sha256 == pack_agent().sha256
    text = (folder / "units" / "edge-agent-console@.service").read_text()
    stable = f"{done.state}/edge-agent.pyz"
    assert f'"{stable}" run --tty /dev/%I --baud 115200 --console --state' in text
    assert Path(stable).read_bytes() == pack_agent().data


@pytest.mark.long
def test_command_line_takes_the_password_from_the_environment_and_shows_it_nowhere(
    board: ConsoleDevice,
) -> None:
    device = at(board)
    done = subprocess.run(
        [sys.executable, "-m", "edgesdk.cli", "agent", "install", str(device.url), "--console"],
        env={**os.environ, "EDGESDK_CONSOLE_PASSWORD": PASSWORD},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "until the device restarts" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.long
def test_login_without_a_shell_is_no_way_in(folder: Path) -> None:
    with console_device(folder, shell="/usr/sbin/nologin") as board:
        error = why_not(at(board))
    assert "cannot log in on serial://alice@" in str(error)


@pytest.mark.long
@pytest.mark.parametrize("shell", [name for name in SHELLS if shutil.which(name)])
def test_other_shells_do(folder: Path, shell: str) -> None:
    found = shutil.which(shell)
    assert found is not None
    own = {"shell": "/bin/sh", "bin_sh": found} if shell == "busybox" else {"shell": found}
    with console_device(folder, **own) as board:
        assert install(at(board)).running


def test_only_a_serial_line_has_a_console() -> None:
    with pytest.raises(InventoryError, match="it is no serial line"):
        install(resolve_device("local:", inventory=None))
