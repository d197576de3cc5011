"""What each operation does.

A handler takes the agent, the request's context, its fields and its body, and gives a frame;
`Refused` is how it says no.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
import traceback
from typing import Any, Dict, Iterator

import edge_agent
from edge_agent import asking, measuring, runtimes
from edge_agent.facts import machine_facts
from edge_agent.fs import Folder, NotOurs
from edge_agent.landing import inflate
from edge_agent.logs import Log
from edge_agent.refusals import Cancelled, Refused, from_os_error
from edge_agent.releases import Releases
from edge_agent.slots import Slots
from edge_agent.store import Store
from edge_agent.supervisor import Supervisor
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame
from edgesdk.wire.limits import MAX_BODY_BYTES, MAX_CHUNK_BYTES, MAX_MANIFEST_BYTES
from edgesdk.wire.ops import PROTOCOL_NEWEST, PROTOCOL_OLDEST, SLOTS

__all__ = ["HANDLERS", "Agent", "answer"]

_PROBE_TIMEOUT_S = 60.0
#: Not worth a line in the log.
_QUIET = ("put", "hello", "status", "logs")


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
        scratch = root.sub("scratch")
        for name in scratch.names():
            scratch.remove(name)
        scratch.close()
        self.slots = Slots(root, self.log.write)
        self.store = Store(root, self.log.write)
        self.releases = Releases(root, self.store, self.slots, self.log.write)
        self.supervisor = Supervisor(python, scratch.path, self.log.write)
        self.stop = lambda: None  # type: Callable[[], None]

    @contextlib.contextmanager
    def worker_turn(self, ctx: Any) -> Iterator[None]:
        """Have the worker, which dies when the one who asked goes away."""
        with self.supervisor.turn(ctx.op):
            ctx.on_cancel = self.supervisor.interrupt
            try:
                if ctx.is_cancelled():
                    raise Cancelled
                yield
            finally:
                ctx.on_cancel = None

    def close(self) -> None:
        """Let go of worker, files and folders."""
        self.supervisor.drop()
        self.store.close()
        self.releases.close()
        self.log.close()
        self.root.close()


def _hello(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    asked = meta.get("protocol")
    if (
        not isinstance(asked, list)
        or len(asked) != 2
        or any(type(version) is not int for version in asked)
    ):
        raise Refused(codes.BAD_REQUEST, "protocol must be [oldest, newest]")
    oldest, newest = asked
    best = min(newest, PROTOCOL_NEWEST)
    if best < max(oldest, PROTOCOL_OLDEST):
        side = "agent" if oldest > PROTOCOL_NEWEST else "host"
        raise Refused(
            codes.VERSION,
            "the host speaks protocol {} to {}, this agent {} to {}: the {} is old".format(
                oldest, newest, PROTOCOL_OLDEST, PROTOCOL_NEWEST, side
            ),
            agent_version=edge_agent.__version__,
            agent_sha256=agent.sha256,
            protocol=[PROTOCOL_OLDEST, PROTOCOL_NEWEST],
            old=side,
        )
    return Frame(
        {
            "protocol": best,
            "agent_version": edge_agent.__version__,
            "agent_sha256": agent.sha256,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "daemon": agent.daemon,
            "pid": os.getpid(),
            "limits": {"max_chunk_bytes": MAX_CHUNK_BYTES, "max_body_bytes": MAX_BODY_BYTES},
        }
    )


def _facts(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    facts = machine_facts()
    facts["worker_python"] = agent.supervisor.python
    facts["disk_free_bytes"] = agent.root.free_bytes()
    facts["state_dir"] = agent.root.path
    wanted = asking.names(meta, "runtimes", runtimes.NAMES)
    if wanted:
        found = {}
        with agent.worker_turn(ctx):
            for name in wanted:
                if ctx.is_cancelled():
                    raise Cancelled
                found[name] = agent.supervisor.probe(name, _PROBE_TIMEOUT_S)
        facts["runtimes"] = found
    return Frame({"facts": facts})


def _slot_states(agent: Agent) -> Dict[str, Any]:
    states = {}  # type: Dict[str, Any]
    for slot in SLOTS:
        bundle = agent.slots.bundle(slot)
        known = None if bundle is None else agent.releases.describe(bundle)
        if bundle is None:
            states[slot] = None
            continue
        known = known or {"name": "", "precision": "", "target": "", "checked": False}
        states[slot] = {
            "bundle": bundle,
            "name": known["name"],
            "precision": known["precision"],
            "target": known["target"],
            "since": agent.slots.since(slot),
            "verified": known["checked"],
        }
    return states


def _status(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    return Frame(
        {
            "agent": {
                "version": edge_agent.__version__,
                "sha256": agent.sha256,
                "python": platform.python_version(),
                "pid": os.getpid(),
                "daemon": agent.daemon,
                "protocol": PROTOCOL_NEWEST,
            },
            "slots": _slot_states(agent),
            "store_bytes": agent.store.bytes_held(),
            "worker": agent.supervisor.state(),
        }
    )


def _stage(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    bundle = asking.sha256(meta, "bundle")
    total = asking.whole(meta, "bytes", 0, MAX_MANIFEST_BYTES, default=len(body))
    offset = asking.whole(meta, "offset", 0, MAX_MANIFEST_BYTES, default=0)
    data = None  # type: Optional[bytes]
    if not body and not total:
        # the host tries its luck: the manifest may be here from an earlier push
        manifest = agent.releases.manifest(bundle) or agent.store.pending_manifest(bundle)
        if manifest is None:
            raise Refused(
                codes.NOT_FOUND,
                "bundle {} is not known here: send its manifest".format(bundle[:12]),
            )
    else:
        data, have = agent.store.collect_manifest(bundle, body, offset, total)
        if data is None:
            return Frame({"have": have})
        manifest = agent.store.checked_manifest(bundle, data)
    missing = agent.store.missing(manifest)
    needed, free = agent.store.check_room(missing)
    if data is not None and (missing or agent.releases.manifest(bundle) is None):
        agent.store.stage(bundle, data, agent.slots.tick())
    elif missing:
        agent.store.restage(bundle, manifest, agent.slots.tick())
    return Frame({"missing": missing, "needed_bytes": needed, "free_bytes": free})


def _put(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    sha256 = asking.sha256(meta, "sha256")
    size = asking.whole(meta, "bytes", 0, 1 << 40)
    offset = asking.whole(meta, "offset", 0, 1 << 40)
    if meta.get("raw_bytes") is not None:
        body = inflate(body, asking.whole(meta, "raw_bytes", 0, MAX_CHUNK_BYTES))
    have, done = agent.store.put(sha256, size, offset, body)
    return Frame({"have": have, "done": done})


def _commit(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    agent.releases.commit(asking.sha256(meta, "bundle"))
    return Frame({"committed": True})


def _activate(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    bundle, manifest = agent.releases.need(asking.sha256(meta, "bundle"))
    if not agent.releases.has_passed(bundle):
        raise Refused(
            codes.CHECK_FAILED,
            "cannot activate {}: it has not passed its check vectors on this device".format(
                bundle[:12]
            ),
            bundle=bundle,
        )
    agent.releases.part_paths(bundle, manifest)
    agent.slots.activate(bundle)
    return Frame({"slots": _slot_states(agent)})


def _rollback(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    bundle = agent.slots.bundle("previous")
    if bundle is not None:
        agent.releases.part_paths(*agent.releases.need(bundle))
    agent.slots.rollback()
    return Frame({"slots": _slot_states(agent)})


def _releases(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    found = [agent.releases.describe(bundle) for bundle in agent.releases.ids()]
    return Frame({"releases": [release for release in found if release is not None]})


def _gc(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    budget = None
    if meta.get("budget_bytes") is not None:
        budget = asking.whole(meta, "budget_bytes", 0, 1 << 50)
    return Frame(agent.releases.collect(budget))


def _logs(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    return Frame({"lines": agent.log.tail(asking.whole(meta, "lines", 0, 10_000, default=100))})


def _unload(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    agent.supervisor.unload()
    return Frame({})


def _shutdown(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    ctx.after = agent.stop
    return Frame({})


HANDLERS = {
    "hello": _hello,
    "facts": _facts,
    "status": _status,
    "stage": _stage,
    "put": _put,
    "commit": _commit,
    "check": measuring.check,
    "activate": _activate,
    "rollback": _rollback,
    "releases": _releases,
    "gc": _gc,
    "run": measuring.run,
    "bench": measuring.bench,
    "logs": _logs,
    "unload": _unload,
    "shutdown": _shutdown,
}  # type: Dict[str, Callable[[Agent, Any, Dict[str, Any], bytes], Frame]]


def answer(agent: Agent, ctx: Any, request: Frame) -> Frame:
    """Do one request. Failure is a reply too: nothing that is asked can end the agent.

    Raises:
        Cancelled: The one who asked is gone; there is nobody to reply to.
    """
    started = time.monotonic()
    op = request.meta.get("op")
    refused = None  # type: Optional[Refused]
    try:
        handler = HANDLERS.get(op) if isinstance(op, str) else None
        if handler is None:
            raise Refused(codes.UNKNOWN_OP, "this agent has no operation {!r}".format(op)[:200])
        reply = handler(agent, ctx, request.meta, request.body)
    except Refused as exc:
        refused = exc
    except Cancelled:
        if ctx.is_cancelled():
            agent.log.write("{}: nobody waits for it any more".format(op))
            raise
        # killed for somebody else, or because the agent ends: who asked still waits
        refused = Refused(codes.WORKER_DIED, "the worker was ended by the agent")
    except OSError as exc:
        refused = from_os_error(exc, str(op)) or _bug(agent, op, exc)
    except NotOurs as exc:
        refused = Refused(codes.AGENT_BUG, "the state folder was tampered with: {}".format(exc))
    except Exception as exc:  # noqa: BLE001 - whatever it is, the agent goes on
        refused = _bug(agent, op, exc)
    took_ms = (time.monotonic() - started) * 1000.0
    if refused is not None:
        agent.log.write("{}: {}: {}".format(op, refused.code, refused)[:1000])
        return Frame(
            {
                "id": request.meta.get("id"),
                "ok": False,
                "code": refused.code,
                "detail": str(refused),
                "facts": refused.facts,
            }
        )
    if op not in _QUIET:
        agent.log.write("{}: done in {:.0f} ms".format(op, took_ms))
    return Frame(dict(reply.meta, id=request.meta.get("id"), ok=True), reply.body)


def _bug(agent: Agent, op: Any, exc: BaseException) -> Refused:
    lines = traceback.format_exc().strip().splitlines()
    for line in lines[-12:]:
        agent.log.write("  " + line)
    where = [line.strip() for line in lines if line.strip().startswith("File ")][-1:]
    text = "{}: {}: {}".format(op, type(exc).__name__, exc)
    return Refused(codes.AGENT_BUG, text[:1000], where=where)
