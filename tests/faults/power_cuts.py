"""Rounds of power cuts on a virtual machine, and what is left on its disk after each.

A round deploys something, which has to work whatever the last cut left; then it begins one
more change, and the power goes at a random moment of that: by the clock, or by how much the
disk was told. The image that the machine boots from again keeps what was flushed and a random
part of the rest. Beside that, many other images that a cut during the change could have left
are made from the log of writes, and the agent is started on the state folder in each.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgesdk.bundle import Bundle
from edgesdk.deploy import deploy_bundle
from edgesdk.deploy.releases import collect_garbage, rollback
from edgesdk.devices import Session, connect, read_status, resolve_device
from edgesdk.errors import EdgeError, LinkError
from edgesdk.testing import (
    STATE_ON_DISK,
    VirtualBoard,
    VirtualMachine,
    crash_image,
    make_echo_bundle,
    read_folder,
    read_writes,
)
from tests.agent.agent_driver import EchoBundle
from tests.agent.inside import Inside

__all__ = ["Campaign", "Totals"]

DISK_BYTES = 64 << 20
CHANGES = ("deploy", "rollback", "deploy", "gc")
_SESSION_S = 120.0
_LAST = EchoBundle(b"the next release", name="next")


@dataclass
class Totals:
    """What a campaign has seen."""

    cuts: int = 0
    in_time: int = 0
    kept_old: int = 0
    became_new: int = 0
    lost_writes: int = 0
    states: int = 0
    states_old: int = 0
    states_new: int = 0


@dataclass
class Change:
    """A change that is under way: what it is, and what may be current during it."""

    name: str
    before: str
    after: str
    told_at: int | None = None
    error: Exception | None = None
    thread: threading.Thread | None = field(default=None, repr=False)


class Campaign:
    """A machine whose power is cut again and again."""

    def __init__(
        self, board: VirtualBoard, folder: Path, modules: dict[str, Any], *, seed: int
    ) -> None:
        self.machine = VirtualMachine(
            board, folder / "machine", disk_bytes=DISK_BYTES, log_writes=True
        )
        self.folder = folder
        self.modules = modules
        self.dice = random.Random(seed)
        self.totals = Totals()
        self._made = 0
        self._usual: dict[str, tuple[float, int]] = {}

    def run(self, cuts: int, *, states: int) -> Totals:
        """Do so many cuts; with each, look at so many other images it could have left."""
        self.machine.boot()
        try:
            with self._session() as session:
                self._deploy(session, self._bundle())
                for name in ("deploy", "rollback", "gc"):
                    self._measure(session, name)
                change = self._begin(session, CHANGES[0])
                self._cut(change)
            for number in range(1, cuts + 1):
                self._look_at_states(change, states)
                self.machine.boot()
                self._recover(change)
                if number % 10 == 0:
                    print(self.totals, flush=True)
                if number < cuts:
                    with self._session() as session:
                        change = self._begin(session, CHANGES[number % len(CHANGES)])
                        self._cut(change)
        finally:
            self.machine.shut_down()
        return self.totals

    # -- the host's side ---------------------------------------------------------------------

    def _session(self) -> Session:
        return connect(resolve_device(self.machine.uart_url), timeout_s=_SESSION_S)

    def _patiently(self, work: Callable[[Session], object]) -> None:
        """Do something that has to succeed; a link that was too slow is tried again.

        The machine's processor is emulated: beside much other work it may say nothing for so
        long that a session gives up.
        """
        for tries_left in (2, 1, 0):
            try:
                with self._session() as session:
                    work(session)
                return
            except LinkError:
                if not tries_left or not self.machine.is_running:
                    raise

    def _bundle(self) -> Bundle:
        self._made += 1
        part = self.dice.randbytes(self.dice.randrange(2_000, 60_000))
        folder = self.folder / f"bundle-{self._made}"
        return make_echo_bundle(folder, name=f"release-{self._made}", part=part)

    def _deploy(self, session: Session, bundle: Bundle) -> None:
        device = resolve_device(self.machine.uart_url)
        receipt = deploy_bundle(bundle, session, device=device)
        assert receipt.slot == "current"
        assert read_status(session)["slots"]["current"]["bundle"] == bundle.id

    def _change(self, session: Session, name: str) -> tuple[Change, Callable[[], object]]:
        slots = read_status(session)["slots"]
        before = slots["current"]["bundle"]
        if name == "deploy":
            bundle = self._bundle()
            after = bundle.id
            return Change(name, before, after), lambda: self._deploy(session, bundle)
        if name == "rollback":
            after = slots["previous"]["bundle"]
            return Change(name, before, after), lambda: rollback(session)
        return Change(name, before, before), lambda: collect_garbage(session)

    def _measure(self, session: Session, name: str) -> None:
        """Learn how long a change takes, and how much the disk is told in it."""
        _, act = self._change(session, name)
        began, told = time.monotonic(), self.machine.log_bytes()
        act()
        took_s = time.monotonic() - began
        self._usual[name] = took_s, self.machine.log_bytes() - told

    def _begin(self, session: Session, name: str) -> Change:
        change, act = self._change(session, name)
        self._began_at = self.machine.log_bytes()

        def work() -> None:
            try:
                act()
                change.told_at = self.machine.log_bytes()
            except EdgeError as exc:
                change.error = exc

        change.thread = threading.Thread(target=work, daemon=True)
        change.thread.start()
        return change

    def _cut(self, change: Change) -> None:
        """Wait for the moment and take the power away."""
        assert change.thread is not None
        usual_s, usual_bytes = self._usual[change.name]
        share = self.dice.uniform(0.0, 1.1)
        by_clock = self.dice.random() < 0.5
        deadline = time.monotonic() + (share * usual_s if by_clock else 10 * usual_s + 5)
        wanted = self._began_at + (1 << 40 if by_clock else int(share * usual_bytes))
        while (
            time.monotonic() < deadline
            and self.machine.log_bytes() <= wanted
            and change.thread.is_alive()
        ):
            time.sleep(0.001)
        self.totals.in_time += change.thread.is_alive()
        cut = self.machine.cut_power(seed=self.dice.getrandbits(32))
        assert cut is not None
        self.totals.cuts += 1
        self.totals.lost_writes += cut.lost
        change.thread.join(60.0)
        assert not change.thread.is_alive(), "the host hangs when the device's power goes"

    def _recover(self, change: Change) -> None:
        """Look at the device after its power came back, and deploy to it."""
        bundle = self._bundle()
        self._patiently(lambda session: self._judge(session, change))
        self._patiently(lambda session: self._deploy(session, bundle))

    def _judge(self, session: Session, change: Change) -> None:
        current = read_status(session)["slots"]["current"]["bundle"]
        wanted = {change.after} if change.told_at is not None else {change.before, change.after}
        assert current in wanted, f"after {change}: {current} is current"
        checked = session.request("check", {"bundle": current, "force": True}, timeout_s=60)
        assert checked.meta["passed"], checked.meta
        if current == change.before:
            self.totals.kept_old += 1
        else:
            self.totals.became_new += 1

    # -- other images ------------------------------------------------------------------------

    def _look_at_states(self, change: Change, count: int) -> None:
        """Make images that a cut in the change could have left, and start the agent there."""
        machine = self.machine
        writes = read_writes(machine.writes)
        first = sum(1 for each in writes if each.end <= self._began_at)
        for _ in range(count):
            upto = self.dice.randint(first, len(writes))
            known_at = writes[upto - 1].end if upto else 0
            image = self.folder / "state.img"
            crash_image(
                machine.base, machine.writes, image, writes=writes[:upto], dice=self.dice
            )
            out = self.folder / "extracted"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            state = read_folder(image, STATE_ON_DISK, out)
            assert state is not None, "the state folder is gone"
            self._judge_state(state, change, told=(change.told_at or 1 << 60) <= known_at)

    def _judge_state(self, state: Path, change: Change, *, told: bool) -> None:
        agent = Inside(self.modules, state)
        try:
            current = agent.current()
            wanted = {change.after} if told else {change.before, change.after}
            assert current in wanted, f"in an image of {change}: {current} is current"
            assert agent.agent.releases.passed(current) is not None
            assert agent.deploy(_LAST) is None
            assert agent.current() == _LAST.id
            assert agent.ask("gc").meta["ok"]
        finally:
            agent.close()
        self.totals.states += 1
        if current == change.before:
            self.totals.states_old += 1
        else:
            self.totals.states_new += 1
