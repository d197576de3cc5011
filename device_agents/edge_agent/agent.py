"""The agent: everything one process holds that has the lock of its state folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Optional

import edge_agent
from edge_agent import later
from edge_agent.fs import Folder
from edge_agent.holding import Hold
from edge_agent.logs import Log
from edge_agent.policy import Policy
from edge_agent.probation import Probation
from edge_agent.refusals import Cancelled
from edge_agent.releases import Releases
from edge_agent.serving_path import StablePath
from edge_agent.slots import Slots
from edge_agent.store import Store
from edge_agent.supervisor import Supervisor

__all__ = ["Agent"]

#: What the daemon has from the start, for it lives long; else each is made when it is needed.
_PARTS = ("finishing", "lanes", "watch", "deltas", "serving")


def _own_sha256() -> str:
    """The hash of the file this agent runs from; empty when it runs from a source tree."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(edge_agent.__file__)))
    if not os.path.isfile(home):
        return ""
    with open(home, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


class Agent:
    """Everything one agent process holds: it has the lock of its state folder."""

    def __init__(self, root: Folder, *, python: str, daemon: bool) -> None:
        self.root = root
        self.daemon = daemon
        self.log = Log(root.sub("logs"))
        self.sha256 = _own_sha256()
        if daemon and os.geteuid() == 0:
            # said and not refused: many boards have no other user
            self.log.write("running as root: what takes a worker over has the whole device")
        self.python_version = sys.version.split()[0].rstrip("+")
        scratch = root.sub("scratch")
        for name in scratch.names():
            with contextlib.suppress(OSError):  # a read-only disk: what is here still serves
                scratch.remove(name)
        scratch.close()
        cache = root.sub("cache")  # kept: what runtimes compiled for this very device
        cache.close()
        self.slots = Slots(root, self.log.write)
        self.store = Store(root, self.log.write)
        self.releases = Releases(root, self.store, self.slots, self.log.write)
        self.policy = Policy(root, self.log.write, known=self._known_bundles)
        self.supervisor = Supervisor(python, scratch.path, self.log.write, cache=cache.path)
        self.probation = Probation(
            self.slots, self.log.write, why_not=self.releases.why_not, watched=daemon
        )
        self.probation.on_returned.append(self.releases.forget_pass)
        self.probation.on_confirmed.append(self.policy.settle)
        confirmed = self.probation.confirmed()
        if confirmed is not None:  # the power may have gone between the two
            self.policy.settle(confirmed)
        self.hold = Hold(root)
        self.path = StablePath(root, self.slots, self.releases, self.log.write)
        self.probation.on_switch.append(self._switched)
        if daemon:
            for name in _PARTS:
                getattr(self, name)
        self.probation.take_up()
        self.stop = lambda: None  # type: Callable[[], None]

    @later.Part
    def finishing(self) -> Any:
        """Who builds parts that are finished here."""
        return later.finishing.Finishing()

    @later.Part
    def lanes(self) -> Any:
        """Further links of the host that pushes."""
        return later.lanes.Lanes(self)

    @later.Part
    def watch(self) -> Any:
        """What looks at a release on probation."""
        return later.watch.Watch(self)

    @later.Part
    def deltas(self) -> Any:
        """The deltas that are expected."""
        return later.assemble.Deltas(self.store, self.releases)

    @later.Part
    def packs(self) -> Any:
        """The samples of evaluations that are kept."""
        return later.evaluating.Packs(self.root)

    @later.Part
    def serving(self) -> Any:
        """What answers applications."""
        boss = self.supervisor
        starter = later.loading.Starter(boss.python, boss.scratch, boss.cache, self.log.write)
        return later.serving.Serving(self, later.memory.Memory(), starter)

    def quiet(self, what: str, cancelled: Callable[[], bool]) -> ContextManager[Any]:
        """Have no application served in the block, because something is measured."""
        if self.has("serving"):
            # what is imported later has no types here
            return self.serving.quiet(what, cancelled)  # type: ignore[no-any-return]
        return contextlib.nullcontext()

    def has(self, part: str) -> bool:
        """Say whether one of these was made: if not, there is nothing to end or to tell."""
        return part in vars(self)

    def _switched(self, bundle: str) -> None:
        self.log.write("current is {}".format(bundle[:12]))
        self.path.repair()
        if self.has("serving"):
            self.serving.switched()

    def _known_bundles(self) -> List[str]:
        return self.releases.ids() + self.store.pending_ids()

    @contextlib.contextmanager
    def worker_turn(
        self, ctx: Any, bundle: str = "", manifest: Optional[Dict[str, Any]] = None
    ) -> Iterator[None]:
        """Have the worker, which dies when the one who asked goes away.

        Applications are served beside it, unless it is to measure or memory is short for
        what it loads: ``bundle``.
        """
        if self.has("watch"):
            self.watch.give_way()
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.supervisor.turn(ctx.op))
            if manifest is not None and self.has("serving"):
                beside = self.serving.beside(ctx.op, bundle, manifest, ctx.is_cancelled)
                stack.enter_context(beside)
            stack.enter_context(ctx.ended_by(self.supervisor.interrupt))
            if ctx.is_cancelled():
                raise Cancelled
            yield

    def close(self) -> None:
        """Let go of workers, files and folders."""
        if self.has("finishing"):
            self.finishing.interrupt()
        for name in ("lanes", "serving", "packs"):
            if self.has(name):
                getattr(self, name).close()
        self.supervisor.drop()
        self.probation.close()
        self.store.close()
        self.releases.close()
        self.policy.close()
        self.log.close()
        self.root.close()
