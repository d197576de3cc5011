"""Disks as they are on bad days: no inodes, remounted read-only, full of what others left."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.agent_driver import AgentProcess, EchoBundle, Start, current, deploy, push

GOOD, OTHER = EchoBundle(b"good", name="good"), EchoBundle(b"other", name="other")
INPUT = {"name": "x", "dtype": "int32", "shape": [2], "offset": 0, "nbytes": 8}


def why_no_mount() -> str:
    """Say why a disk of the test's own cannot be mounted here; nothing where it can."""
    for program in ("unshare", "nsenter", "mount"):
        if shutil.which(program) is None:
            return f"there is no program {program} (util-linux has it)"
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        check=False,
    )
    return "" if tried.returncode == 0 else "this user may not mount (root may)"


class OwnDisk:
    """An agent whose state folder lies on a disk that only it sees."""

    def __init__(self, agent: AgentProcess, mount: Path) -> None:
        self.agent = agent
        self.mount = mount

    def shell(self, command: str) -> str:
        """Run a command where the agent's disk is seen."""
        target = ["nsenter", "-t", str(self.agent.process.pid), "-m"]
        done = subprocess.run(
            [*target, "sh", "-c", command], capture_output=True, text=True, check=True
        )
        return done.stdout


StartOnDisk = Callable[[str], OwnDisk]


@pytest.fixture
def start_on_disk(agent_pyz: Path, oldest_python: str, tmp_path: Path) -> Iterator[StartOnDisk]:
    why = why_no_mount()
    if why:
        pytest.skip(why)
    mount = tmp_path / "disk"
    mount.mkdir()
    with contextlib.ExitStack() as stack:

        def start(options: str) -> OwnDisk:
            script = f'mount -t tmpfs -o {options} none "{mount}" && exec "$@"'
            agent = [oldest_python, "-I", "-S", str(agent_pyz), "stdio"]
            line = ["unshare", "-m", "sh", "-c", script, "sh", *agent]
            process = AgentProcess([*line, "--state", str(mount / "state")])
            return OwnDisk(stack.enter_context(process), mount)

        yield start


def test_no_inodes_are_no_space_and_gc_gets_some_back(start_on_disk: StartOnDisk) -> None:
    disk = start_on_disk("size=64m,nr_inodes=120")
    agent = disk.agent
    for bundle in (OTHER, GOOD):
        deploy(agent, bundle)
    deploy(agent, EchoBundle(b"third", name="third"))
    disk.shell(f"i=0; while touch {disk.mount}/f$i 2>/dev/null; do i=$((i+1)); done")
    late = EchoBundle(b"late" * 100, name="late")
    reply = agent.ask("stage", late.data, bundle=late.id).meta
    assert reply["code"] == "no-space", reply
    assert agent.ask("run", bytes(8), release="current", tensors=[INPUT]).meta["ok"]
    assert agent.ask("rollback").meta["code"] == "no-space"
    assert agent.ask("gc").meta["removed"] == [OTHER.id]
    push(agent, late)  # into what gc has freed
    assert agent.ask("check", bundle=late.id).meta["ok"]
    disk.shell(f"rm -f {disk.mount}/f1*")
    deploy(agent, late)
    assert current(agent) == late.id


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.faults)])
def test_stale_folders_are_collected_and_in_nobodys_way(
    start: Start, state: Path, count: int
) -> None:
    agent = start()
    deploy(agent, GOOD)
    agent.hang_up()
    for number in range(count):
        os.mkdir(state / "staging" / f"stale-{number}")
    for number in range(count // 20):
        (state / "pending" / f"{number}-x").touch()
        os.mkdir(state / "releases" / f"new-{number}")
        (state / "releases" / f"new-{number}" / "part-0.bin").touch()
        (state / "scratch" / f"{number}").touch()
    agent = start()
    assert current(agent) == GOOD.id
    deploy(agent, OTHER)
    assert list((state / "staging").iterdir()) == []
    assert list((state / "pending").iterdir()) == []
    assert len(list((state / "releases").iterdir())) == 2
    assert list((state / "scratch").iterdir()) == []


def test_links_and_pipes_among_what_is_stale_are_removed_not_followed(
    start: Start, state: Path, tmp_path: Path
) -> None:
    agent = start()
    deploy(agent, GOOD)
    agent.hang_up()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    for folder in ("staging", "pending", "releases", "scratch"):
        (state / folder / "link").symlink_to(tmp_path / "precious")
        os.mkfifo(state / folder / "pipe")
    agent = start()
    push(agent, OTHER)
    assert agent.ask("gc").meta["ok"]
    assert (tmp_path / "precious" / "file").read_text() == "kept"
    assert not any((state / folder / "link").exists() for folder in ("staging", "releases"))
