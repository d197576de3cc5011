"""The files in which a device keeps what it demands: ``trust/`` in the state folder.

``policy.json`` says what is demanded, ``allowed_signers`` and ``revoked_keys`` whose signature
counts, ``line.key`` is shared with hosts on serial lines, ``floors.json`` has the counter per
artifact below which a bundle is outdated. All is read anew whenever it is needed, so what
``edge-agent trust`` changes holds at once; and where a file cannot be read, nothing is trusted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from edge_agent import later
from edge_agent.fs import Folder, NotOurs
from edgesdk.wire.frames import load_json
from edgesdk.wire.statement import MAX_COUNTER

__all__ = ["Demands", "TrustFiles"]

_POLICY, _SIGNERS, _REVOKED = "policy.json", "allowed_signers", "revoked_keys"
_FLOORS, _LINE_KEY = "floors.json", "line.key"
_LOCK = "lock"
_MAX_BYTES = 1 << 20


class Demands:
    """What the device demands, as it stands in its files now."""

    def __init__(self) -> None:
        self.is_set = False
        self.require = False
        self.remote = False
        self.signers = []  # type: List[Signer]
        self.damaged = ""


class TrustFiles:
    """The files of ``folder``, which is ``trust`` in the state folder."""

    def __init__(self, folder: Folder, log: Callable[[str], None]) -> None:
        self._folder = folder
        self._log = log

    def identity(self) -> Tuple[Any, ...]:
        """What changes when anything that a signature is held against is written again."""
        names = (_POLICY, _SIGNERS, _REVOKED, _FLOORS)
        return tuple(self._folder.identity(name) for name in names)

    def has_line_key(self) -> bool:
        """Say whether hosts on a line are asked for a key."""
        return self._folder.stat(_LINE_KEY) is not None

    def _text(self, name: str) -> str:
        try:
            return self._folder.read(name, limit=_MAX_BYTES).decode("utf-8")
        except FileNotFoundError:
            return ""

    def demands(self) -> Demands:
        """Read what is demanded; what cannot be read is demanded with no key that counts."""
        found = Demands()
        try:
            text = self._text(_POLICY)
            found.is_set = bool(text)
            if text:
                record = load_json(text.encode("utf-8"))
                if (
                    not isinstance(record, dict)
                    or type(record.get("require")) is not bool
                    or type(record.get("remote")) is not bool
                ):
                    raise ValueError("it does not say what is required")
                found.require, found.remote = record["require"], record["remote"]
            signers, revoked = self._text(_SIGNERS), self._text(_REVOKED)
            if signers or revoked:
                found.signers = later.signing_keys.load_signers(signers, revoked)
        except (OSError, ValueError, NotOurs) as exc:
            found.is_set, found.require, found.remote = True, True, False
            found.signers = []
            found.damaged = str(exc)
        return found

    def words(self) -> str:
        """Say in a word what becomes of signatures here."""
        found = self.demands()
        return "required" if found.require else "checked" if found.signers else "ignored"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the files while the block runs."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_LOCK, flags, 0o600, dir_fd=self._folder.fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def floors(self) -> Tuple[Dict[str, int], int]:
        """Give the lowest counter that is taken per name, and the newest time that was signed.

        Raises:
            ValueError: The file is damaged: what is outdated is not known any more.
        """
        text = self._text(_FLOORS)
        if not text:
            return {}, 0
        record = load_json(text.encode("utf-8"))
        floors = record.get("floors") if isinstance(record, dict) else None
        if not isinstance(floors, dict) or type(record.get("newest")) is not int:
            raise ValueError("{} is damaged".format(_FLOORS))
        for value in floors.values():
            if type(value) is not int or not 0 <= value <= MAX_COUNTER:
                raise ValueError("{} is damaged".format(_FLOORS))
        return floors, record["newest"]

    def write_floors(self, floors: Dict[str, int], newest: int) -> None:
        """Keep what `floors` gives; only while the files are `locked`."""
        record = {"schema": 1, "floors": floors, "newest": newest}
        self._folder.write_whole(_FLOORS, json.dumps(record, sort_keys=True).encode("utf-8"))

    def set_floor(self, name: str, counter: int) -> None:
        """Take bundles called ``name`` from ``counter`` on, whatever was settled before."""
        with self.locked():
            try:
                floors, newest = self.floors()
            except ValueError:
                floors, newest = {}, 0
            floors[name] = counter
            self.write_floors(floors, newest)

    def line_key(self) -> Optional[bytes]:
        """The key that hosts on a serial line must have, or None where none is asked for."""
        try:
            text = self._text(_LINE_KEY)
            return later.auth.key_of_text(text) if text else None
        except (OSError, ValueError, NotOurs) as exc:
            self._log("trust: the key for the line cannot be read: {}".format(exc))
            return os.urandom(32)  # nobody has this one: the line stays shut

    def set_line_key(self, key: Optional[bytes]) -> None:
        """Demand ``key`` of hosts on serial lines from now on; None demands nothing."""
        if key is None:
            self._folder.remove(_LINE_KEY)
            self._folder.sync()
        else:
            self._folder.write_whole(_LINE_KEY, (key.hex() + "\n").encode("ascii"))

    def configure(self, changes: Dict[str, Any]) -> None:
        """Change what is demanded: ``signers``, ``revoked`` (texts), ``require``, ``remote``.

        Raises:
            KeysError: A list of keys cannot be read, or no key would count.
        """
        with self.locked():
            now = self.demands()
            signers = changes.get("signers", self._text(_SIGNERS))
            revoked = changes.get("revoked", self._text(_REVOKED))
            require = changes.get("require", now.require)
            remote = changes.get("remote", now.remote)
            keys = later.signing_keys
            counting = [s for s in keys.load_signers(signers, revoked) if not s.revoked]
            if require and not counting:
                raise keys.KeysError("no key would count: list a signer before you require one")
            # keys first: a demand without its keys would lock everybody out
            for name, text in ((_SIGNERS, signers), (_REVOKED, revoked)):
                self._folder.write_whole(name, text.encode("utf-8"))
            if "signers" in changes:
                with contextlib.suppress(ValueError):
                    self.write_floors(self.floors()[0], 0)  # new keys have said no time yet
            record = {"schema": 1, "require": require, "remote": remote}
            self._folder.write_whole(_POLICY, json.dumps(record).encode("utf-8"))
        self._log("trust: signatures are {}demanded".format("" if require else "not "))
