"""The conversation: protocol version, operations, and what each asks and answers.

A request is a frame whose meta has ``op`` and ``id`` (a positive integer that no request of the
session had before). The agent answers with frames that echo ``id``:

* any number of *events*: ``{"id", "event": "alive" | "progress", ...}`` while it works, at
  least one a second, so that silence means trouble however long the work takes;
* one *reply*: ``{"id", "ok": true, ...}`` or
  ``{"id", "ok": false, "code", "detail", "facts"}``.

Nothing is asked twice: what a serial line loses is sent again below this (`edgesdk.wire.arq`).
Requests may be sent without waiting (``put``); they are answered in order. A ``hello`` with
another ``session`` on the same link ends what the session before it asked for.

==========  ==========================================  ====================================
op          asks                                        answers
==========  ==========================================  ====================================
hello       protocol [oldest, newest], host_version,    protocol, agent_version,
            session (hex), nonce (hex), who             agent_sha256, python, daemon, pid,
            (user@host), lane (a token)                 limits, notice (a line a person should
                                                        read first, or nothing), signatures
                                                        (required, checked or ignored); bare
                                                        (true: it takes bare frames); nonce,
                                                        where this line demands proof
auth        proof (of the host)                         proof (of the agent); all that
                                                        follows is sealed, both ways: see
                                                        `edgesdk.wire.auth`
vouch       bundle, statement, signature: see           verified, signer, counter, floor,
            `edgesdk.wire.statement`                    downgrade; or verified false and why
trust       set {signers, revoked, require, remote}     is_set, require, remote, signers,
            (optional; where a host may)                floors, line_key, checks_with, signed,
                                                        damaged, challenge (for a downgrade)
facts       runtimes (true, or a list of names:         facts
            probe these too)
status                                                  agent, slots, probation, returned,
                                                        holder, store_bytes, worker, serving
stage       bundle; body: canonical manifest, or a      missing: [{sha256, bytes, have}],
            piece of it with offset and bytes           needed_bytes, free_bytes
put         sha256, bytes, offset, raw_bytes (if the    have (whole from the start), done
            body is zlib), ahead (true: what is in
            front of it comes on another lane);
            body: chunk
lanes                                                   token, ahead_bytes (how far ahead of
                                                        ``have`` a chunk may be)
held                                                    releases: [{bundle, blobs: [[sha256,
                                                        bytes], ...]}], those in a slot first
blocks      sha256, bytes, block_bytes, strong_bytes,   blocks; body: of each block its
            stride (every how many-th block)            Adler-32 and so many bytes of its
                                                        SHA-256
assemble    sha256, bytes, delta, delta_bytes; or       done; false where the delta is yet to
            body: the delta (see `edgesdk.wire.delta`)  be put: have
commit      bundle                                      committed
finish      bundle, timeout_s, force                    parts: [{part, backend, outcome, why,
                                                        fingerprint, seconds, ...}]
check       bundle, timeout_s, force, max_latency_us    passed, reused, vectors, runtimes,
                                                        load_ms, cold_start_ms, tensors,
                                                        latency {median_us, runs};
                                                        body: outputs
activate    bundle, probation_s, max_latency_us         slots, probation, returned
rollback    why                                         slots, probation, returned
confirm     bundle (optional: it must be current)       slots, probation, returned, ended
hold        doing, wait_s (waits for another host)      holder {who, doing, for_s}
release                                                 (lets go of the device)
releases                                                releases (those in a slot with
                                                        inputs and preprocess)
gc          budget_bytes (optional), bundle (optional:  removed, freed_bytes, kept
            only this one, a candidate too)
run         release, tensors, timeout_s; body: inputs   tensors, run_ms, parts;
                                                        body: outputs
bench       release, spec (see                          see `edgesdk.bench`;
            `edge_agent.benching`)                      body: samples (u64 ns); its events
                                                        carry some in ``live``
pair        release, against, order (who goes first in  pairs, mode, why, started, conditions,
            each pair: ``0`` for release, ``1``),       load_ms, wall_s, runtimes, cpus;
            block_ms, duration_s, threads, cpus,        body: see `edge_agent.pairing`
            sample_conditions, side_by_side, timeout_s
evaluate    release, samples, tensors (each with an     samples, tensors (runs of samples with
            axis in front that counts samples),         one shape: with first, and top where
            outputs (names), top, timeout_s (each),     they are the places of the largest),
            pack (SHA-256: keep these samples, or       run_ms, was_here, raw_bytes (if the
            use those that were kept), raw_bytes        body is zlib); body: outputs
            (if the body is zlib), squeeze (the
            answer may be zlib); body: samples
profile     release, runs, threads, timeout_s,          runtimes; body: JSON {chain_us, parts:
            budget_s                                    [{index, runtime, total_us, share,
                                                        how, why, ops}]}, see
                                                        `edge_agent.offload`
infer       release (default ``current``), tensors,     bundle, tensors, run_ms;
            timeout_s; body: inputs                     body: outputs
served      release (default ``current``)               bundle, name, precision, runtimes,
                                                        inputs, outputs, ready, waiting
logs        lines                                       lines
ping                                                    (shows that the agent answers)
unload                                                  (frees the worker)
shutdown                                                (the daemon ends)
==========  ==========================================  ====================================

A push that one link cannot carry goes on over *lanes*: further links to the same agent, whose
``hello`` has the ``token`` as ``lane`` and which take only ``put``.

Where the device demands signatures, what brings in, runs or switches to a bundle is refused
with ``not-trusted`` until a good signature of it has been given with ``vouch``.

``release`` is a slot name (``current``, ``previous``, ``candidate``) or a bundle id.
"""

from __future__ import annotations

__all__ = ["FINISHED_RUNTIMES", "OPS", "PROTOCOL_NEWEST", "PROTOCOL_OLDEST", "SLOTS"]

#: The oldest and newest protocol version this code speaks.
PROTOCOL_OLDEST = 1
PROTOCOL_NEWEST = 1

#: Runtimes whose parts are finished on the device, between ``commit`` and ``check``.
FINISHED_RUNTIMES = ("tensorrt",)

SLOTS = ("current", "previous", "candidate")

OPS = (
    "hello",
    "auth",
    "vouch",
    "trust",
    "facts",
    "status",
    "stage",
    "put",
    "lanes",
    "held",
    "blocks",
    "assemble",
    "commit",
    "finish",
    "check",
    "activate",
    "rollback",
    "confirm",
    "hold",
    "release",
    "releases",
    "gc",
    "run",
    "bench",
    "pair",
    "evaluate",
    "profile",
    "infer",
    "served",
    "logs",
    "ping",
    "unload",
    "shutdown",
)
