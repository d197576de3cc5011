"""The table of (state x fault): each step of a deployment, broken in every way, and what holds.

A *state* is one operation of the agent. A *fault* is one of its system calls that change the
disk which fails (error), during which the process is killed (kill, before the call or right
after it), or which does not return for a while (hang). The process that is killed is a fork of
the test, so what it leaves is what SIGKILL leaves. After every cell the device has one whole
release, the old or the new one; what was said to be active is active; a later push succeeds by
itself; leftovers are bounded and collected.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.agent.agent_driver import EchoBundle
from tests.agent.inside import Inside

METHODS = (
    "open",
    "write",
    "truncate",
    "fsync",
    "chmod",
    "mkdir",
    "rename",
    "link",
    "symlink",
    "unlink",
    "rmdir",
)
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
FAULTS = ("error", "kill before", "kill after", "hang")
#: In use, going to be pushed, and one that only takes room.
OLDEST, OLD, NEW = (
    EchoBundle(b"oldest", name="oldest"),
    EchoBundle(b"old" * 50, name="old"),
    EchoBundle(b"new" * 1000, name="new", parts=2),
)


@dataclass(frozen=True)
class Cell:
    """One cell: which call of which state is broken, and how."""

    state: str
    fault: str
    number: int
    error: int = errno.EIO

    def __str__(self) -> str:
        """Say it for a failed assertion."""
        return f"{self.state}: {self.fault} at call {self.number}"


def _put(inside: Inside) -> None:
    reply = inside.ask("stage", NEW.data, bundle=NEW.id).meta
    for blob in reply.get("missing", []):
        data = NEW.blobs[blob["sha256"]]
        for offset in range(0, len(data), 1500):
            meta = {"sha256": blob["sha256"], "bytes": blob["bytes"], "offset": offset}
            inside.ask("put", data[offset : offset + 1500], **meta)


def _prepare_probation(inside: Inside) -> None:
    assert inside.push(NEW) is None
    inside.pass_check(NEW)
    assert inside.ask("activate", bundle=NEW.id, probation_s=600.0).meta["ok"]


def _fail_thrice(inside: Inside) -> None:
    probation = inside.agent.probation
    for _ in range(3):
        probation.note_starting(NEW.id)
        probation.note_failed(NEW.id, "it died")


def _confirm(inside: Inside) -> None:
    inside.ask("confirm")


@dataclass(frozen=True)
class State:
    """One step: what comes before it, the step, and which releases may be current after."""

    prepare: Callable[[Inside], Any]
    act: Callable[[Inside], Any]
    may_be: tuple[EchoBundle, ...] = (OLD,)


def _nothing(inside: Inside) -> None:
    """Begin with what every device here has: OLD is current, OLDEST only takes room."""


def _staged(inside: Inside) -> None:
    inside.ask("stage", NEW.data, bundle=NEW.id)


def _all_put(inside: Inside) -> None:
    _put(inside)


def _pushed(inside: Inside) -> None:
    assert inside.push(NEW) is None


def _proven(inside: Inside) -> None:
    _pushed(inside)
    inside.pass_check(NEW)


STATES: dict[str, State] = {
    "stage": State(_nothing, _staged),
    "put": State(_nothing, _put),
    "commit": State(_all_put, lambda inside: inside.ask("commit", bundle=NEW.id)),
    "check": State(_pushed, lambda inside: inside.pass_check(NEW)),
    "activate": State(
        _proven, lambda inside: inside.ask("activate", bundle=NEW.id), (OLD, NEW)
    ),
    "probation": State(_prepare_probation, _fail_thrice, (OLD, NEW)),
    "confirm": State(_prepare_probation, _confirm, (NEW,)),
    "rollback": State(
        _prepare_probation, lambda inside: inside.ask("rollback", why="a test"), (OLD, NEW)
    ),
    "gc": State(_nothing, lambda inside: inside.ask("gc")),
}


class Broken:
    """System calls of which the n-th does not do what it should."""

    def __init__(self, real: Any, cell: Cell) -> None:
        self.real = real
        self.cell = cell
        self.left = cell.number
        self.reached = False
        #: Only what this thread calls is counted: an agent has others that tidy.
        self.thread = threading.get_ident()
        self.go_on = threading.Event()
        for name in METHODS:
            setattr(self, name, self._wrapped(name))

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = getattr(self.real, name)

        def call(*arguments: Any) -> Any:
            if threading.get_ident() != self.thread:
                return real(*arguments)
            self.left -= 1
            if self.left != 0:
                return real(*arguments)
            self.reached = True
            if self.cell.fault == "error":
                raise OSError(self.cell.error, os.strerror(self.cell.error))
            if self.cell.fault == "kill before":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.cell.fault == "hang":
                self.go_on.wait(20)
            try:
                return real(*arguments)
            finally:
                if self.cell.fault == "kill after":
                    os.kill(os.getpid(), signal.SIGKILL)

        return call


class Table:
    """Runs cells, each on a device of its own that is copied from a prepared one."""

    def __init__(self, modules: Any, folder: Path, use: Callable[[Any], None]) -> None:
        self.modules = modules
        self.folder = folder
        self.use = use
        self.real = modules["fs"].calls
        self.cells = 0
        self._prepared: dict[str, Path] = {}

    def _device(self, state: str, name: str) -> Path:
        ready = self._prepared.get(state)
        if ready is None:
            ready = self.folder / f"ready-{state}"
            inside = Inside(self.modules, ready)
            assert inside.deploy(OLDEST) is None
            assert inside.deploy(OLD) is None
            inside.ask("confirm")
            # one more in between, so that OLDEST is in no slot and gc has something to do
            assert inside.deploy(between := EchoBundle(b"between", name="between")) is None
            assert inside.deploy(OLD) is None
            inside.ask("confirm")
            assert inside.agent.slots.bundle("previous") == between.id
            STATES[state].prepare(inside)
            inside.agent.close()
            self._prepared[state] = ready
        device = self.folder / name
        shutil.copytree(ready, device, symlinks=True, copy_function=_link_or_copy)
        return device

    def count_calls(self, state: str) -> int:
        """How many system calls the state makes where nothing is broken."""
        device = self._device(state, f"count-{state}")
        inside = Inside(self.modules, device)
        counting = Broken(self.real, Cell(state, "error", 1 << 30))
        self.use(counting)
        STATES[state].act(inside)
        self.use(self.real)
        inside.agent.close()
        shutil.rmtree(device)
        return (1 << 30) - counting.left

    def run(self, cell: Cell) -> None:
        """Break that one call, and see that everything holds."""
        device = self._device(cell.state, f"cell-{self.cells}")
        self.cells += 1
        before = _current(self.modules, device)
        if cell.fault.startswith("kill"):
            told = self._run_killed(cell, device)
        elif cell.fault == "hang":
            told = self._run_hung(cell, device)
        else:
            told = self._run_error(cell, device)
        self._check(cell, device, before, told)
        shutil.rmtree(device)

    def _act(self, cell: Cell, inside: Inside) -> Any:
        result = STATES[cell.state].act(inside)
        return result.meta if hasattr(result, "meta") else None

    def _run_error(self, cell: Cell, device: Path) -> Any:
        inside = Inside(self.modules, device)
        broken = Broken(self.real, cell)
        self.use(broken)
        told = None
        with contextlib.suppress(OSError):  # `check` has no request around it here
            told = self._act(cell, inside)
        self.use(self.real)
        assert broken.reached, cell
        # the agent lives, and the same one can say what it has
        assert inside.current() in {OLD.id, NEW.id}, cell
        inside.agent.close()
        return told

    def _run_killed(self, cell: Cell, device: Path) -> Any:
        child = os.fork()
        if child == 0:
            try:
                inside = Inside(self.modules, device)
                self.use(Broken(self.real, cell))
                self._act(cell, inside)
            except BaseException as exc:  # noqa: BLE001 - a fork must not go on as a test
                print(repr(exc), file=sys.stderr, flush=True)
            os._exit(9)  # the call was never reached
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), cell
        return None

    def _run_hung(self, cell: Cell, device: Path) -> Any:
        inside = Inside(self.modules, device)
        broken = Broken(self.real, cell)
        self.use(broken)
        told: list[Any] = []

        def act() -> None:
            broken.thread = threading.get_ident()
            with contextlib.suppress(OSError):
                told.append(self._act(cell, inside))

        acting = threading.Thread(target=act)
        acting.start()
        deadline = time.monotonic() + 20
        while not broken.reached and time.monotonic() < deadline:
            time.sleep(0.001)
        assert broken.reached, cell
        # meanwhile others are told what the device has
        answer: list[Any] = []
        asking = threading.Thread(target=lambda: answer.append(inside.ask("status").meta))
        asking.start()
        asking.join(10)
        assert answer, f"{cell}: nobody is answered meanwhile"
        assert answer[0]["slots"]["current"]["bundle"] in {OLD.id, NEW.id}
        broken.go_on.set()
        acting.join(20)
        self.use(self.real)
        inside.agent.close()
        return told[0] if told else None

    def _check(self, cell: Cell, device: Path, before: str, told: Any) -> None:
        """All invariants, on an agent that starts anew."""
        inside = Inside(self.modules, device)
        now = inside.current()  # 1: whole, its bytes proven
        allowed = {bundle.id for bundle in STATES[cell.state].may_be}
        assert now in allowed | {before}, f"{cell}: a third release is current"  # 2
        if told and told.get("ok") and "slots" in told:  # 4: what was told is so
            assert told["slots"]["current"]["bundle"] == now, cell
        slots = inside.agent.slots
        probation = slots.probation()
        if probation is not None:  # 5: what it would return to is here, whole
            inside.ask("gc")
            assert inside.agent.releases.why_not(probation["return_to"]) is None, cell
            assert probation["bundle"] == now
        returned = [record["bundle"] for record in slots.returned() if record["by"] == "device"]
        for bundle in returned:  # 5: and what failed is in no slot
            assert slots.slot_of(bundle) is None, cell
        _check_leftovers(device, cell)  # 3
        assert inside.deploy(NEW) is None, f"{cell}: the next push fails"
        assert inside.current() == NEW.id
        assert inside.ask("gc").meta["ok"]
        inside.agent.close()
        assert list((device / "staging").iterdir()) == [], cell
        assert [p.name for p in device.rglob("*.tmp")] == [], cell
        assert len(list((device / "releases").iterdir())) <= 4, cell


def _current(modules: Any, device: Path) -> str:
    inside = Inside(modules, device)
    now = inside.current()
    inside.agent.close()
    return now


def _check_leftovers(device: Path, cell: Cell) -> None:
    staged = {path.name for path in (device / "staging").iterdir()}
    assert len(staged) <= len(NEW.blobs) + 1, cell
    odd = [p.name for p in (device / "releases").iterdir() if len(p.name) != 64]
    assert odd == [], f"{cell}: a release that never became one is left"


def _link_or_copy(source: str, target: str) -> None:
    # blobs are never written again, so a device may share them with the one it is copied from
    if os.path.basename(os.path.dirname(source)) == "blobs":
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def cells(table: Table, state: str, *, step: int) -> Iterator[Cell]:
    """Give the cells of one state; with a step above 1 only some of its calls are broken."""
    count = table.count_calls(state)
    for number in range(1, count + 1):
        for index, fault in enumerate(FAULTS):
            if (number + index) % step == 0 or (step > 1 and number == count):
                error = ERRORS[number % len(ERRORS)]
                yield Cell(state, fault, number, error)
