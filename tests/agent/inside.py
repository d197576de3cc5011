"""An agent in the test's own process: no link, and its parts can be taken hold of."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesdk.wire.frames import Frame
from tests.agent.agent_driver import EchoBundle

__all__ = ["Inside", "import_agent", "load_modules", "using_calls"]

NAMES = (
    *("agent", "handlers", "fs", "landing", "store", "logs", "serve", "watch", "probation"),
    *("probe", "refusals", "releases"),
)
_FOLDER = str(Path(__file__).parents[2] / "device_agents")


def load_modules(agent_modules: Callable[[str], Any]) -> dict[str, Any]:
    """Import the agent's modules that tests reach into, by name."""
    agent_modules("edge_agent.later").import_all()  # so that `using_calls` finds every user
    return {name: agent_modules(f"edge_agent.{name}") for name in NAMES}


def import_agent() -> dict[str, Any]:
    """Import those modules for tests that stand elsewhere."""
    if _FOLDER not in sys.path:
        sys.path.insert(0, _FOLDER)
    return load_modules(importlib.import_module)


@contextmanager
def using_calls(calls: Any) -> Iterator[None]:
    """Let every module of the agent that changes the disk do it through ``calls``."""
    users = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("edge_agent.") and hasattr(module, "calls")
    ]
    before = [module.calls for module in users]
    for module in users:
        setattr(module, "calls", calls)  # noqa: B010 - mypy knows no such attribute
    try:
        yield
    finally:
        for module, old in zip(users, before, strict=True):
            setattr(module, "calls", old)  # noqa: B010 - mypy knows no such attribute


class Inside:
    """An agent in this process; it says nothing in its log, which may be on a full disk."""

    def __init__(
        self, modules: Any, state: Path, *, python: str = "", daemon: bool = False
    ) -> None:
        self.modules = modules
        root = modules["fs"].Folder.open_state(str(state))
        self.agent = modules["agent"].Agent(root, python=python, daemon=daemon)
        self.lines: list[str] = []
        self.agent.log.write = self.lines.append
        self.agent.slots._log = self.agent.log.write
        self.agent.probation._log = self.agent.log.write
        self.ctx = modules["serve"].Context("test", lambda meta: None)
        #: The operations that were answered with yes, each with its bundle or blob.
        self.told: list[tuple[str, str]] = []

    def ask(self, op: str, body: bytes = b"", **meta: Any) -> Frame:
        frame: Frame = self.modules["handlers"].answer(
            self.agent, self.ctx, Frame({"op": op, "id": 1, **meta}, body)
        )
        if frame.meta["ok"] and (op != "put" or frame.meta["done"]):
            self.told.append((op, str(meta.get("bundle", meta.get("sha256", "")))))
        return frame

    def push(self, bundle: EchoBundle, *, chunk: int = 1 << 20) -> dict[str, Any] | None:
        """Stage, send and commit; give the first refusal."""
        reply = self.ask("stage", bundle.data, bundle=bundle.id).meta
        if not reply["ok"]:
            return reply
        for blob in reply["missing"]:
            data, offset, again = bundle.blobs[blob["sha256"]], blob["have"], False
            while True:
                meta = {"sha256": blob["sha256"], "bytes": blob["bytes"], "offset": offset}
                reply = self.ask("put", data[offset : offset + chunk], **meta).meta
                if reply.get("code") == "bad-hash" and not again:
                    offset, again = 0, True  # as the host: an earlier push may have left damage
                    continue
                if not reply["ok"]:
                    return reply
                offset = reply["have"]
                if reply["done"]:
                    break
        reply = self.ask("commit", bundle=bundle.id).meta
        return None if reply["ok"] else reply

    def pass_check(self, bundle: EchoBundle) -> None:
        """Record a pass without the check's worker."""
        self.agent.releases.record_pass(bundle.id, {"reply": {}}, b"outputs")
        self.told.append(("pass", bundle.id))

    def deploy(self, bundle: EchoBundle, *, chunk: int = 1 << 20) -> dict[str, Any] | None:
        """Deploy without the check's worker; give the first refusal."""
        refused = self.push(bundle, chunk=chunk)
        if refused is not None:
            return refused
        try:
            self.pass_check(bundle)
        except OSError as exc:
            return {"ok": False, "code": str(exc.errno)}
        reply = self.ask("activate", bundle=bundle.id).meta
        return None if reply["ok"] else reply

    def current(self) -> str:
        """The current release; its bytes are proven."""
        slots = self.ask("status").meta["slots"]
        bundle, manifest = self.agent.releases.need("current")
        self.agent.releases.part_paths(bundle, manifest)
        assert slots["current"]["bundle"] == bundle
        return str(bundle)

    def close(self) -> None:
        """Let go of files, folders and workers."""
        self.agent.close()
