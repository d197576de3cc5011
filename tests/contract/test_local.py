"""What only a child process has: it ends with us, however we end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgesdk.devices import connect, read_facts, resolve_device
from edgesdk.errors import BootstrapError, ChannelClosed, LinkError

HOST = """
import sys
from edgesdk.devices import connect, resolve_device
with connect(resolve_device(sys.argv[1])) as session:
    print(session.hello.pid, flush=True)
    sys.stdin.read()
"""


def lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_agent_ends_when_its_host_is_killed(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-c", HOST, f"local:?state={tmp_path}/state"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        assert lives(pid)
        os.kill(host.pid, signal.SIGKILL)
        host.wait()
    deadline = time.monotonic() + 10
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not lives(pid)


def test_killed_agent_is_named_with_its_signal(tmp_path: Path) -> None:
    with connect(resolve_device(f"local:?state={tmp_path}/state")) as session:
        os.kill(session.hello.pid, signal.SIGKILL)
        with pytest.raises(ChannelClosed, match="the agent was ended by signal SIGKILL"):
            read_facts(session)


def test_agent_that_cannot_start_says_at_which_stage(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    (state / "something").touch()
    with pytest.raises(LinkError, match=r"failed at stage state-folder: .* has mode 755"):
        connect(resolve_device(f"local:?state={state}"))


def test_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        BootstrapError, match=rf"cannot put the agent into {tmp_path}/file/state/bin"
    ):
        connect(resolve_device(f"local:?state={tmp_path}/file/state"))


def test_empty_folder_of_the_users_may_be_the_state_folder(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    with connect(resolve_device(f"local:?state={state}")) as session:
        assert session.hello.protocol == 1
    assert state.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("what", ["open to others", "a link"])
def test_folder_from_which_others_could_make_us_run_a_file_is_refused(
    tmp_path: Path, what: str
) -> None:
    state = tmp_path / "state"
    (tmp_path / "elsewhere").mkdir()
    state.mkdir(mode=0o700)
    if what == "a link":
        (state / "bin").symlink_to(tmp_path / "elsewhere")
    else:
        (state / "bin").mkdir()
        (state / "bin").chmod(0o777)
    with pytest.raises(BootstrapError, match="it is a link, or others may write there"):
        connect(resolve_device(f"local:?state={state}"))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("echo 3.6.15", "it is Python 3.6.15 (3.7 or newer)"),
        ("exit 9", "it is no Python: it ended with status 9"),
        (None, "no such file or directory"),
    ],
)
def test_interpreter_that_is_absent_or_too_old_is_named_before_it_is_needed(
    tmp_path: Path, text: str | None, seen: str
) -> None:
    path = tmp_path / "python"
    if text is not None:
        program(path, text)
    device = resolve_device(f"local:?state={tmp_path / 'state'}&python={path}")
    with pytest.raises(BootstrapError) as caught:
        connect(device)
    assert f"cannot use interpreter {path} on local:" in str(caught.value)
    assert str(caught.value).endswith(seen)
    assert "python=/usr/bin/python3" in caught.value.hint
