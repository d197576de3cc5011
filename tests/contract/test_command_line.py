"""The command line against real devices that misbehave: sentence, hint, exit code, no harm.

Agents are real, over a child process, a real sshd and a pty with the real pyserial; only the
faults are made. With ``--format json`` each command must leave one document on stdout.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgesdk.testing import LocalSshd, PtyPair, make_echo_bundle, serial_agent
from tests.contract.typed import Typed

EDGESDK = [sys.executable, "-m", "edgesdk.cli"]
SCREEN_CODES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def device(tmp_path: Path) -> str:
    return f"local:?state={tmp_path / 'state'}"


def current(typed: Typed, device: str) -> str | None:
    slot = typed.ok("status", device)["current"]
    return None if slot is None else str(slot["bundle"])


# what a device says no to


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"load_die": "SIGSEGV"}, "the worker ended by SIGSEGV while loading part 0"),
        ({"die": "SIGABRT"}, "the worker ended by SIGABRT"),
        ({"fail": "no such kernel"}, "no such kernel"),
    ],
)
def test_a_worker_that_dies_is_named_and_the_release_stays(
    options: dict[str, str], problem: str, typed: Typed, device: str, tmp_path: Path
) -> None:
    good = make_echo_bundle(tmp_path / "good")
    bad = make_echo_bundle(tmp_path / "bad", options=options)
    typed.ok("deploy", good.folder, "--no-bench", "-d", device)
    error = typed.refused("deploy", bad.folder, "--no-bench", "-d", device)
    assert error["exit_code"] == 5
    assert error["code"] == "worker-error"
    assert problem in error["problem"]
    assert current(typed, device) == good.id


def test_other_numbers_than_on_the_host_are_not_activated(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    good = make_echo_bundle(tmp_path / "good")
    bad = make_echo_bundle(tmp_path / "bad", expected=bytes(64))
    typed.ok("deploy", good.folder, "--no-bench", "-d", device)
    error = typed.refused("deploy", bad.folder, "--no-bench", "-d", device)
    assert (error["code"], error["exit_code"]) == ("self-check-error", 5)
    assert "output y is off by 63" in error["problem"]
    assert current(typed, device) == good.id


def test_a_device_that_is_not_the_target_gets_nothing(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    other = make_echo_bundle(tmp_path / "other", target="jetson-orin-nano")
    error = typed.refused("deploy", other.folder, "--no-bench", "-d", device)
    assert (error["code"], error["exit_code"]) == ("target-mismatch", 5)
    assert "it is no jetson-orin-nano: " in error["problem"]
    assert "--force-target" in error["hint"]
    assert typed.ok("status", device)["store_bytes"] == 0
    done = typed.ok("deploy", other.folder, "--no-bench", "-d", device, "--force-target")
    assert done["deployment"]["target_mismatch"]


def test_a_slot_that_is_empty_is_said(typed: Typed, device: str, tmp_path: Path) -> None:
    error = typed.refused("rollback", device)
    assert error["exit_code"] == 5
    assert "no previous release" in error["problem"]
    assert "edgesdk releases" in error["hint"]
    for command in (("bench", device), ("run", device, "--data", "none.npz")):
        error = typed.refused(*command)
        assert error["exit_code"] == 2
        assert "cannot find release 'current'" in error["problem"]
        assert "edgesdk deploy puts one there" in error["hint"]


def test_a_release_is_rolled_back_and_what_is_left_collected(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    bundles = [
        make_echo_bundle(tmp_path / name, part=name.encode()) for name in ("a", "b", "c")
    ]
    for bundle in bundles:
        typed.ok("deploy", bundle.folder, "--no-bench", "-d", device)
    assert typed.ok("rollback", device)["current"]["bundle"] == bundles[1].id
    assert typed.ok("gc", device)["removed"] == [bundles[0].id]
    left = {each["bundle"] for each in typed.ok("releases", device)["releases"]}
    assert left == {bundles[1].id, bundles[2].id}


def test_two_releases_are_compared_in_turns_and_the_report_tells(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    slow = make_echo_bundle(tmp_path / "slow", part=b"slow", options={"delay_ms": 3})
    quick = make_echo_bundle(tmp_path / "quick", part=b"quick", options={"delay_ms": 1})
    for bundle in (slow, quick):
        typed.ok("deploy", bundle.folder, "--no-bench", "-d", device)
    asked = ("bench", device, "--bundle", quick.folder, "--runs", "20", "--compare")
    folder = tmp_path / "run"
    seed = ("--compare-seconds", "1.5", "--compare-seed", "7", "-o", folder)
    done = typed.ok(*asked, "previous", *seed)
    (compared,) = done["comparisons"]
    assert (compared["theirs"], compared["verdict"], compared["seed"]) == (slow.id, "faster", 7)
    assert 0.3 < compared["at_least"] < 0.7
    kept = json.loads((folder / "report.json").read_text())
    (record,) = kept["comparisons"]
    assert (record["ours"], record["theirs"], record["starts"]) == (quick.id, slow.id, 3)
    assert kept["trust"]["grade"] in "ABCD"
    text = " ".join(typed.text("report", folder).split())
    assert f"against {slow.id[:12]} faster by at least" in text
    assert "trust " in text
    error = typed.refused(*asked, "current")
    assert "with itself" in error["problem"]
    error = typed.refused(*asked, "previous", "--compare", slow.id[:12])
    assert "twice" in error["problem"]
    assert typed.refused(*asked, "previous", "--compare-seconds", "0.5")["exit_code"] == 2
    assert typed.refused("bench", device, "--compare-seed", "1")["exit_code"] == 2
    assert "cannot find release" in typed.refused(*asked, "ab" * 32)["problem"]


# what happens on the way there


@pytest.mark.parametrize(
    ("url", "problem", "hint"),
    [
        ("ssh://pi@127.0.0.1:1", "connection refused", "does an SSH server run there"),
        ("serial:///dev/no-such-port", "there is no such port", "is the cable in?"),
        ("serial:///dev/null", "it is no serial port", "is the path right?"),
        ("local:?state=/proc/none", "cannot put the agent into /proc/none", "?state=FOLDER"),
    ],
)
def test_what_cannot_be_reached_is_a_link_error(
    url: str, problem: str, hint: str, typed: Typed
) -> None:
    error = typed.refused("status", url)
    assert error["exit_code"] == 4
    assert problem in error["problem"]
    assert hint in error["hint"]


def test_over_ssh_each_refusal_is_a_link_error_with_a_way_on(
    typed: Typed,
    sshd: LocalSshd,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = home / ".ssh" / "known_hosts"
    state = tmp_path / "state"
    url = sshd.url(state=state, python=sys.executable)
    plain = f"ssh://{sshd.user}@127.0.0.1:{sshd.port}"
    error = typed.refused("status", url)
    assert (error["code"], error["exit_code"]) == ("host-key-error", 4)
    assert "its host key is unknown" in error["problem"]
    kind, key = LocalSshd(tmp_path / "other").host_line().split()[1:]
    known.write_text(f"[127.0.0.1]:{sshd.port} {kind} {key}\n")
    error = typed.refused("status", url)
    assert "its host key has changed" in error["problem"]
    known.write_text(sshd.host_line())
    error = typed.refused("status", plain)
    assert (error["code"], error["exit_code"]) == ("auth-error", 4)
    monkeypatch.setenv("EDGESDK_SSH_PASSWORD", "not-the-one")
    error = typed.refused("status", plain)
    assert "wrong password" in error["problem"]
    assert "not-the-one" not in json.dumps(error)
    error = typed.refused("status", sshd.url(state=state, python="/nowhere/python3"))
    assert (error["code"], error["exit_code"]) == ("bootstrap-error", 4)
    assert "there is no such Python" in error["problem"]
    assert typed.ok("status", url)["schema"] == "edgesdk.status/1"


def test_a_port_that_is_held_and_a_line_without_agent(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESDK_CONNECT_TIMEOUT_S", "1")
    with PtyPair() as line:
        url = f"serial://{line.host_path}?baud=115200"
        error = typed.refused("status", url)
        assert (error["code"], error["exit_code"]) == ("channel-timeout", 4)
        assert "cannot greet the agent" in error["problem"]
        with Path(line.host_path).open("rb", buffering=0) as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            error = typed.refused("status", url)
        assert error["exit_code"] == 4
        assert "another program holds it" in error["problem"]


def test_a_cable_pulled_in_the_middle_of_a_push_costs_only_the_rest(
    typed: Typed, tmp_path: Path
) -> None:
    good = make_echo_bundle(tmp_path / "good")
    large = make_echo_bundle(tmp_path / "large", part=os.urandom(3_000_000))
    folder = tmp_path / "device"
    folder.mkdir()
    with PtyPair() as line, serial_agent(line.device_path, folder / "state"):
        url = f"serial://{line.host_path}?baud=921600"
        typed.ok("deploy", good.folder, "--no-bench", "-d", url)
        begun = line.to_device_bytes
        watch = threading.Thread(
            target=wait_until,
            args=(lambda: line.to_device_bytes > begun + 1_000_000, line.pull_cable),
        )
        watch.start()
        error = typed.refused("deploy", large.folder, "--no-bench", "-d", url)
        watch.join()
        assert (error["code"], error["exit_code"]) == ("channel-timeout", 4)
        assert "the next run continues" in error["hint"]
        line.plug_in()
        line.say_to_host(b"[  1.2] EDG1 noise on the line \x00\xff\r\n")
        assert current(typed, url) == good.id
        sent = typed.ok("deploy", large.folder, "--no-bench", "-d", url)["deployment"]
        assert sent["bytes_skipped"] > 500_000
        assert current(typed, url) == large.id


def wait_until(done: Callable[[], bool], then: Callable[[], None]) -> None:
    deadline = time.monotonic() + 60.0
    while not done() and time.monotonic() < deadline:
        time.sleep(0.002)
    then()


# what a person at a terminal sees


def test_the_password_is_asked_for_at_a_terminal_and_never_shown(
    typed: Typed, sshd: LocalSshd, home: Path
) -> None:
    (home / ".ssh" / "known_hosts").write_text(sshd.host_line())
    url = f"ssh://{sshd.user}@127.0.0.1:{sshd.port}"
    seen, code = at_a_terminal(["status", url], when=b"password of", answer=b"pass-word\n")
    assert code == 4
    assert f"password of {sshd.user} on {url}: " in seen
    assert "error: cannot log in to" in seen
    assert "pass-word" not in seen
    seen, code = at_a_terminal(["status", url], when=b"password of", answer=b"\x03")
    assert code == 130
    assert "\nerror: interrupted" in seen.replace("\r", "")


def test_long_errors_fit_a_narrow_terminal(typed: Typed) -> None:
    seen, code = at_a_terminal(["status", "usb://stick"])
    assert code == 2
    lines = seen.replace("\r", "").splitlines()
    assert [line[:7] for line in lines[:2]] == ["error: ", "       "]
    assert max(len(line) for line in lines) <= 60


def at_a_terminal(
    args: list[str], *, when: bytes | None = None, answer: bytes = b""
) -> tuple[str, int]:
    """Run a command on a pty of 60 columns; type ``answer`` once ``when`` is on it.

    A Ctrl-C is typed again each second until the command ends, as a person would do: one
    between the prompt and the read behind it is noticed only at the next key.
    """
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        EDGESDK + args,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "60", "NO_COLOR": "1"},
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509 - one call that takes no lock
    )
    os.close(theirs)
    seen, prompted = b"", False
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 1.0)[0]:
            if prompted and answer == b"\x03":
                os.write(ours, answer)
            continue
        try:
            data = os.read(ours, 4096)
        except OSError:
            break  # the other end is closed
        seen += data
        if when and not prompted and b": " in seen.partition(when)[2]:
            os.write(ours, answer)
            prompted = True
    os.close(ours)
    return SCREEN_CODES.sub(b"", seen).decode("utf-8", "replace"), child.wait(timeout=30.0)


def take_terminal() -> None:
    """Make the pty on stdin the one whose Ctrl-C reaches this process, and let it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # a shell starts its background jobs with the signal ignored, and children inherit that
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.3])
def test_ctrl_c_while_it_starts_is_told_like_any_other(
    delay_s: float, typed: Typed, tmp_path: Path
) -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from edgesdk.cli import main\nprint('ready', flush=True)\nmain()"
    make_echo_bundle(tmp_path / "echo")
    child = subprocess.Popen(
        [sys.executable, "-c", code, "deploy", "echo", "--no-bench"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.05 + delay_s)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 130, told
    assert told.startswith("error: interrupted\nhint: ")
    assert "Traceback" not in told
