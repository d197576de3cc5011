"""One push, as a program of its own: imports, connection, hash and fsync are in its time.

``python link_ssh_arms.py ARM ...`` prints one line of JSON when it has pushed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any


def _push(session: Any, bundle_folder: str, on_progress: Any) -> Any:
    """Stage, send, commit."""
    from edgesdk.bundle import read_bundle
    from edgesdk.deploy.push import push_blobs, read_missing
    from edgesdk.wire.manifest import canonical_bytes, deployed_blobs

    bundle = read_bundle(Path(bundle_folder))
    wanted = dict(deployed_blobs(dict(bundle.manifest)))
    data = canonical_bytes(dict(bundle.manifest))
    meta = session.request("stage", {"bundle": bundle.id}, data).meta
    result = push_blobs(session, bundle, read_missing(meta, wanted), on_progress=on_progress)
    session.request("commit", {"bundle": bundle.id}, timeout_s=120.0)
    return result


def _edgesdk(url: str, bundle_folder: str, lanes: str) -> dict[str, Any]:
    from edgesdk.deploy import lanes as more
    from edgesdk.devices.connect import connect
    from edgesdk.devices.inventory import resolve_device
    from edgesdk.progress import ignore_progress

    if lanes:
        more.MAX_LANES = int(lanes)
    with connect(resolve_device(url)) as session:
        begun = time.perf_counter()
        result = _push(session, bundle_folder, ignore_progress)
        took_s = time.perf_counter() - begun
        agent_kib = _peak_kib(str(session.hello.pid))
    return {"sent": result.bytes_sent, "push_s": took_s, "agent_kib": agent_kib}


def _peak_kib(pid: str) -> int:
    """The most memory a process has had; 0 where that cannot be seen."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in text.splitlines() if "VmHWM" in line)


def _cut(url: str, bundle_folder: str, share: str, lanes: str) -> dict[str, Any]:
    """Push, cut the connection when a share has come, push again; gives what went twice."""
    from edgesdk.deploy import lanes as more
    from edgesdk.devices.connect import connect
    from edgesdk.devices.inventory import resolve_device
    from edgesdk.devices.session import Session
    from edgesdk.errors import LinkError
    from edgesdk.progress import Progress

    if lanes:
        more.MAX_LANES = int(lanes)
    posted = 0
    post, post_file = Session.post, Session.post_file

    def count(self: Session, op: str, meta: dict[str, Any], body: bytes = b"") -> int:
        nonlocal posted
        posted += len(body)
        return post(self, op, meta, body)

    def count_file(
        self: Session, op: str, meta: dict[str, Any], descriptor: int, offset: int, size: int
    ) -> int:
        nonlocal posted
        posted += size
        return post_file(self, op, meta, descriptor, offset, size)

    Session.post_file = count_file  # type: ignore[assignment,method-assign]  # as below
    Session.post = count  # type: ignore[assignment,method-assign]  # to see what is sent
    session: Any = connect(resolve_device(url))

    def cut(progress: Progress) -> None:
        if progress.total and progress.done >= float(share) * progress.total:
            with contextlib.suppress(OSError):  # it was cut before
                os.kill(session.channel.pid, signal.SIGKILL)

    with contextlib.suppress(LinkError), session:
        _push(session, bundle_folder, cut)
        raise RuntimeError("the push was not cut")
    with connect(resolve_device(url)) as again:
        _push(again, bundle_folder, lambda progress: None)
    return {"posted": posted}


def _fleet(urls: str, bundle_folder: str) -> dict[str, Any]:
    """Push to several devices at once, from one process."""
    threads = [
        threading.Thread(target=_edgesdk, args=(url, bundle_folder, ""))
        for url in urls.split(",")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {}


def _sftp(
    host: str, port: str, user: str, key: str, source: str, target: str
) -> dict[str, Any]:
    import paramiko  # noqa: TID251 - the peer, as its own documentation uses it

    client = paramiko.SSHClient()
    client.load_system_host_keys(str(Path.home() / ".ssh" / "known_hosts"))
    client.connect(
        host, int(port), user, key_filename=key, allow_agent=False, look_for_keys=False
    )
    with client, client.open_sftp() as sftp:
        sftp.put(source, target)
    return {}


def _control(url: str, requests: str, sizes: str) -> dict[str, Any]:
    """Time control requests on an open session, with bodies of several sizes."""
    from edgesdk.devices.connect import connect
    from edgesdk.devices.inventory import resolve_device
    from edgesdk.errors import DeviceError, EdgeError

    times: dict[str, list[float]] = {}
    with connect(resolve_device(url)) as session:
        session.request("logs", {"lines": 0})
        for _ in range(int(requests)):
            for size in sizes.split(","):
                # refused by its fields, after the body came: nothing but the way counts
                begun = time.perf_counter()
                try:
                    session.request("put", {"sha256": "?"}, bytes(int(size)))
                except DeviceError:
                    pass
                except EdgeError as exc:
                    if exc.facts.get("code") not in (None, "bad-request"):
                        raise
                times.setdefault(size, []).append(time.perf_counter() - begun)
    return {"times": times}


ARMS = {"edgesdk": _edgesdk, "cut": _cut, "fleet": _fleet, "sftp": _sftp, "control": _control}

if __name__ == "__main__":
    found = ARMS[sys.argv[1]](*sys.argv[2:])
    found["host_kib"] = _peak_kib("self")
    sys.stdout.write(json.dumps(found) + "\n")
