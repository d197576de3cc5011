"""One worker that serves a release: started, warmed with a check vector, asked, ended."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Dict, List

from edge_agent.limits import run_limit_s
from edge_agent.loading import Loaded, Starter
from edge_agent.refusals import Refused
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame
from edgesdk.wire.limits import MAX_TENSOR_BYTES
from edgesdk.wire.tensors import TensorError, check_specs

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.memory import Memory

__all__ = ["Served", "start_served"]

_LOAD_S = 300.0
_RUN_S = 120.0


def _no_event(event: Dict[str, Any]) -> None:
    """Nobody watches a worker of ours start."""


def _never() -> bool:
    """It is wanted until it is ended."""
    return False


class Served:
    """A release in a worker that answers one request at a time."""

    def __init__(
        self, bundle: str, manifest: Dict[str, Any], loaded: Loaded, memory: Memory
    ) -> None:
        self.bundle = bundle
        self.manifest = manifest
        self.inputs = manifest["inputs"]  # type: List[Dict[str, Any]]
        self.loaded = loaded
        self.worker = loaded.worker
        self._run_s = run_limit_s(manifest, _RUN_S)
        self._memory = memory

    @property
    def is_stale(self) -> bool:
        """Whether loading it again would give something better."""
        return self.loaded.stale

    def is_alive(self) -> bool:
        """Say whether its process still runs, and was not told to end."""
        return self.worker.is_alive()

    def how_it_ended(self) -> str:
        """In words, for the log and for the reason of a rollback."""
        return self.worker.how_it_ended()

    def run(self, specs: List[Dict[str, Any]], body: bytes, *, is_first: bool = False) -> Frame:
        """Run the release once on checked inputs; the first time, see what it takes.

        Raises:
            Refused: The runtime refuses, dies, or takes longer than the release may.
            Cancelled: Its worker was ended by us.
        """
        reply = self.worker.request(
            {"op": "run", "tensors": specs, "brief": not is_first},
            body,
            timeout_s=self._run_s,
            doing="serving",
        )
        self.loaded.fresh = False
        try:
            check_specs(reply.meta.get("tensors"), len(reply.body))
        except TensorError as exc:
            raise Refused(
                codes.WORKER_FAILED, "the worker gave no tensors: {}".format(exc)
            ) from exc
        if is_first:
            self._memory.note(self.bundle, reply.meta.get("peak_rss_bytes"))
        return reply

    def close_soon(self) -> None:
        """End the worker without waiting until it is gone."""
        self.worker.kill()
        threading.Thread(target=self.worker.close, name="ending", daemon=True).start()


def start_served(agent: Agent, memory: Memory, starter: Starter, bundle: str) -> Served:
    """Load a release and run it once, so that no application pays for its first run.

    The worker in which a host has just checked the release is taken over if it is free.

    Args:
        agent: Whose releases they are.
        memory: Where there is no room, a host's idle worker is ended first.
        starter: Starts the worker.
        bundle: The release.

    Raises:
        Refused: It cannot be started here.
        Cancelled: The agent ended it.
    """
    _, manifest = agent.releases.need(bundle)
    files = agent.releases.part_paths(bundle, manifest)
    loaded = agent.supervisor.hand_over(bundle)
    if loaded is None:
        if not memory.has_room(bundle, manifest):
            agent.supervisor.drop_if_free()
        loaded = starter.start(
            bundle,
            manifest,
            files,
            threads=None,
            timeout_s=_LOAD_S,  # slower than one request waits: the next one wants it too
            on_event=_no_event,
            cancelled=_never,
        )
    served = Served(bundle, manifest, loaded, memory)
    try:
        if loaded.fresh:
            _warm(agent, served)
    except BaseException:
        loaded.worker.close()
        raise
    return served


def _warm(agent: Agent, served: Served) -> None:
    """Run the first check vector; what it gives was compared when the release was checked."""
    vector = served.manifest["checks"][0]
    blob = agent.store.blobs.read(vector["blob"]["sha256"], limit=vector["blob"]["bytes"])
    specs, pieces, offset = [], [], 0
    for spec in vector["inputs"]:
        pieces.append(blob[spec["offset"] : spec["offset"] + spec["nbytes"]])
        specs.append(dict(spec, offset=offset))
        offset += spec["nbytes"]
    if offset <= MAX_TENSOR_BYTES:
        served.run(specs, b"".join(pieces), is_first=True)
