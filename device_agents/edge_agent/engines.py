"""Engines that were finished on this device, kept by what they were made of and for.

One folder. ``<id>.engine`` is what a vendor's builder wrote, ``<id>.json`` says of it what it
was made from, by what and for which device, its size and hash; the id is the hash of the first
three. The JSON file is written last, so an engine without one is what a power cut left. Nothing
is believed: what does not hash as its record says, or was made for another driver, GPU or
version, is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import Any, Callable, Collection, Dict, Iterator, List, Optional, Tuple

from edge_agent.fs import Folder, NotOurs, calls

__all__ = ["NONE_YET", "Engines", "fingerprint_id"]

NONE_YET = "no engine has been built of it on this device"
_RECORD = ".json"
_ENGINE = ".engine"
_BUILDING = "build-"
_ID_CHARS = 40
_MAX_RECORD_BYTES = 1 << 18
#: Engines beyond this many bytes go, the longest unused first.
CAP_BYTES = 4 << 30


def fingerprint_id(fingerprint: Dict[str, Any]) -> str:
    """Name a fingerprint by its hash."""
    data = json.dumps(fingerprint, sort_keys=True).encode("utf-8")
    return hashlib.sha256(data).hexdigest()[:_ID_CHARS]


def _is_id(name: str) -> bool:
    return len(name) == _ID_CHARS and all(c in "0123456789abcdef" for c in name)


def _hash(folder: Folder, name: str, *, sync: bool = False) -> Tuple[str, int]:
    digest, total = hashlib.sha256(), 0
    fd = folder.open_read(name)
    try:
        while True:
            piece = os.read(fd, 1 << 20)
            if not piece:
                break
            digest.update(piece)
            total += len(piece)
        if sync:
            calls.fsync(fd)
    finally:
        os.close(fd)
    return digest.hexdigest(), total


class Engines:
    """The engines in one folder, made if it is missing."""

    def __init__(self, path: str, log: Callable[[str], None] = lambda _: None) -> None:
        self._folder = Folder.open_state(path)
        self._log = log

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *_: Any) -> None:
        self._folder.close()

    @property
    def path(self) -> str:
        """Where they lie."""
        return self._folder.path

    def _records(self) -> Iterator[Tuple[str, Dict[str, Any]]]:
        for name in self._folder.names():
            identity = name[: -len(_RECORD)]
            if name.endswith(_RECORD) and _is_id(identity):
                record = self._record(identity)
                if record is not None:
                    yield identity, record

    def _record(self, identity: str) -> Optional[Dict[str, Any]]:
        try:
            data = self._folder.read(identity + _RECORD, limit=_MAX_RECORD_BYTES)
            record = json.loads(data.decode("utf-8"))
        except (OSError, ValueError, NotOurs, RecursionError):
            return None
        known = isinstance(record, dict) and isinstance(record.get("fingerprint"), dict)
        return record if known and fingerprint_id(record["fingerprint"]) == identity else None

    # -- use ---------------------------------------------------------------------------------

    def find(self, fingerprint: Dict[str, Any]) -> Tuple[Optional[Dict[str, Any]], str]:
        """Look for the engine of a fingerprint; its bytes are hashed.

        Returns:
            Its record with ``path`` added, or None; and why there is none that can be used.
        """
        identity = fingerprint_id(fingerprint)
        record = self._record(identity)
        if record is None:
            return None, self._nearest(fingerprint)
        try:
            seen = _hash(self._folder, identity + _ENGINE)
        except (OSError, NotOurs) as exc:
            return None, "its engine cannot be read: {}".format(exc)
        if seen != (record.get("sha256"), record.get("bytes")):
            self._log("engine {} is damaged and is not used".format(identity[:12]))
            return None, "its engine is damaged: it does not hash to what was written"
        with contextlib.suppress(OSError):
            os.utime(identity + _RECORD, dir_fd=self._folder.fd)  # used now
        return dict(record, path=os.path.join(self.path, identity + _ENGINE)), ""

    def _nearest(self, fingerprint: Dict[str, Any]) -> str:
        """Say how the engines of the same model differ from the one that is wanted."""
        reasons = []
        for _, record in self._records():
            other = record["fingerprint"]
            if other.get("model") != fingerprint.get("model"):
                continue
            differ = [
                "{} {} (here {})".format(key.replace("_", " "), other.get(key), wanted)
                for key, wanted in sorted(fingerprint.items())
                if key != "model" and other.get(key) != wanted
            ]
            reasons.append("the engine that is here was built for " + ", ".join(differ))
        return reasons[0][:400] if reasons else NONE_YET

    # -- make --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def building(self) -> Iterator[str]:
        """Give the path of an empty folder for a builder's files; it is gone afterwards."""
        name = "{}{}".format(_BUILDING, os.getpid())
        self._folder.remove(name)
        self._folder.sub(name).close()
        try:
            yield os.path.join(self.path, name)
        finally:
            with contextlib.suppress(OSError, NotOurs):
                self._folder.remove(name)

    def publish(
        self, built: str, fingerprint: Dict[str, Any], details: Dict[str, Any]
    ) -> Dict[str, Any]:
        """Take the engine file ``built`` in; it is complete and durable, or not there.

        Args:
            built: A path that `building` gave, and a name in it.
            fingerprint: What it was made of and for.
            details: What else its record says.

        Returns:
            The record.
        """
        identity = fingerprint_id(fingerprint)
        place, name = os.path.split(built)
        folder = self._folder.sub(os.path.basename(place), create=False)
        try:
            sha256, size = _hash(folder, name, sync=True)
            # an older record must not speak for the new engine, not even for a moment
            self._folder.remove(identity + _RECORD)
            folder.move(name, self._folder, identity + _ENGINE)
        finally:
            folder.close()
        record = dict(
            details,
            fingerprint=fingerprint,
            sha256=sha256,
            bytes=size,
            since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        data = json.dumps(record, sort_keys=True).encode("utf-8")
        self._folder.write_whole(identity + _RECORD, data)
        return record

    # -- rubbish -----------------------------------------------------------------------------

    def clean(self) -> None:
        """Remove what a builder left that was killed; no other may be at work."""
        known = {identity for identity, _ in self._records()}
        for name in self._folder.names():
            identity = name.rpartition(".")[0]
            if name.startswith((_BUILDING, ".")) or (
                _is_id(identity) and identity not in known
            ):
                self._log("{}: what an interrupted build left was removed".format(name[:60]))
                self._folder.remove(name)

    def keep_only(
        self, models: Optional[Collection[str]] = None, *, cap_bytes: int = CAP_BYTES
    ) -> int:
        """Remove engines of models that are gone, and the longest unused beyond a size.

        Args:
            models: Hashes of the model files that may still be run; None keeps all.
            cap_bytes: What the rest may take.

        Returns:
            Bytes that were freed.
        """
        freed = 0
        kept = []  # type: List[Tuple[float, str, int]]
        for identity, record in self._records():
            size = self._folder.size(identity + _ENGINE) or 0
            files = record["fingerprint"].get("model")
            first = files[0] if isinstance(files, list) and files else None
            seen = self._folder.stat(identity + _RECORD)
            if models is not None and first not in models:
                freed += self._drop(identity, size)
            else:
                kept.append((seen.st_mtime if seen is not None else 0.0, identity, size))
        total = sum(size for _, _, size in kept)
        for _, identity, size in sorted(kept)[:-1]:  # the newest stays, whatever its size
            if total <= cap_bytes:
                break
            freed += self._drop(identity, size)
            total -= size
        return freed

    def _drop(self, identity: str, size: int) -> int:
        self._log("engine {} was removed".format(identity[:12]))
        self._folder.remove(identity + _RECORD)
        self._folder.remove(identity + _ENGINE)
        return size

    def states(self, models: Collection[str]) -> List[List[Any]]:
        """What changes when an engine of one of ``models`` is built again."""
        found = []  # type: List[List[Any]]
        for identity, record in self._records():
            files = record["fingerprint"].get("model")
            if isinstance(files, list) and files and files[0] in models:
                found.append([identity, record.get("sha256")])
        return found
