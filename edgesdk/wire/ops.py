"""The conversation: protocol version, operations, and what each asks and answers.

A request is a frame whose meta has ``op`` and ``id`` (a positive integer, rising within one
session). The agent answers with frames that echo ``id``:

* any number of *events*: ``{"id", "event": "alive" | "progress", ...}`` while it works, at
  least one a second, so that silence means trouble however long the work takes;
* one *reply*: ``{"id", "ok": true, ...}`` or
  ``{"id", "ok": false, "code", "detail", "facts"}``.

A request repeated with the same ``id`` in the same session (a lost frame on a serial line) is
answered from the last replies, not done twice. Requests may be sent without waiting (``put``);
they are answered in order.

==========  ==========================================  ====================================
op          asks                                        answers
==========  ==========================================  ====================================
hello       protocol [oldest, newest], host_version,    protocol, agent_version,
            session (hex)                               agent_sha256, python, daemon, pid,
                                                        limits
facts       runtimes (true, or a list of names:         facts
            probe these too)
status                                                  agent, slots, store_bytes, worker
stage       bundle; body: canonical manifest, or a      missing: [{sha256, bytes, have}],
            piece of it with offset and bytes           needed_bytes, free_bytes
put         sha256, bytes, offset, raw_bytes (if the    have, done
            body is zlib); body: chunk
commit      bundle                                      committed
check       bundle, timeout_s, force                    passed, reused, vectors, runtimes,
                                                        load_ms, cold_start_ms, tensors;
                                                        body: outputs
activate    bundle                                      slots
rollback                                                slots
releases                                                releases (those in a slot with
                                                        inputs and preprocess)
gc          budget_bytes (optional)                     removed, freed_bytes, kept
run         release, tensors, timeout_s; body: inputs   tensors, run_ms, parts;
                                                        body: outputs
bench       release, spec                               see `edgesdk.bench`;
                                                        body: samples (u64 ns)
logs        lines                                       lines
unload                                                  (frees the worker)
shutdown                                                (the daemon ends)
==========  ==========================================  ====================================

``release`` is a slot name (``current``, ``previous``, ``candidate``) or a bundle id.
"""

from __future__ import annotations

__all__ = ["OPS", "PROTOCOL_NEWEST", "PROTOCOL_OLDEST", "SLOTS"]

#: The oldest and newest protocol version this code speaks.
PROTOCOL_OLDEST = 1
PROTOCOL_NEWEST = 1

SLOTS = ("current", "previous", "candidate")

OPS = (
    "hello",
    "facts",
    "status",
    "stage",
    "put",
    "commit",
    "check",
    "activate",
    "rollback",
    "releases",
    "gc",
    "run",
    "bench",
    "logs",
    "unload",
    "shutdown",
)
