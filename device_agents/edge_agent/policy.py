"""Whose bundles this device takes: the signatures it was given, held against what it demands.

What is demanded stands in the files of `edge_agent.policy_files`; ``trust/vouched/`` has the
statements that were found good, by bundle. They are checked anew at every gate.

The demand is a gate for what comes in and for what a host switches to or runs. The release that
is current keeps running, and the agent's own return to the one before is not asked: they passed
this gate when they came, and a clock that jumps must not stop a device that works.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from edge_agent import later
from edge_agent.fs import Folder, NotOurs
from edge_agent.policy_files import Demands, TrustFiles
from edge_agent.refusals import Refused
from edgesdk.wire import codes
from edgesdk.wire.frames import load_json
from edgesdk.wire.manifest import is_sha256
from edgesdk.wire.statement import (
    MAX_SIGNATURE_CHARS,
    MAX_STATEMENT_CHARS,
    StatementError,
    load_statement,
)

if TYPE_CHECKING:
    from edge_agent.signing import Checker

__all__ = ["Policy"]

#: What a host is told of a statement that was found good.
_SAID = ("signer", "counter", "floor")
_MAX_FLOORS = 4096
_MAX_VOUCHED = 64
_KEPT_ANSWERS = 64
#: A bundle that was found good is not asked about again for so long, in seconds.
_ANSWER_S = 30.0


def _untrusted(bundle: str, why: str, text: str) -> Refused:
    return Refused(
        codes.NOT_TRUSTED,
        "bundle {} is not trusted: {}".format(bundle[:12], text),
        why=why,
        bundle=bundle,
    )


class Policy:
    """The ``trust`` folder. ``known`` gives the bundles whose statements are worth keeping."""

    def __init__(
        self,
        root: Folder,
        log: Callable[[str], None],
        *,
        known: Callable[[], List[str]] = list,
    ) -> None:
        self._log = log
        self._known = known
        self._made_checker = None  # type: Optional[Checker]
        self._folder = root.sub("trust")
        self.files = TrustFiles(self._folder, log)
        self._vouched = self._folder.sub("vouched")
        self._challenge = os.urandom(32).hex()
        self._answers = {}  # type: Dict[Any, Tuple[float, Dict[str, Any]]]

    def close(self) -> None:
        """Close the folders."""
        self._vouched.close()
        self._folder.close()

    @property
    def _checker(self) -> Checker:
        if self._made_checker is None:
            self._made_checker = later.signing.Checker()
        return self._made_checker

    # -- statements --------------------------------------------------------------------------

    @property
    def challenge(self) -> str:
        """What a statement has to repeat to be taken although it is outdated; serves once."""
        return self._challenge

    def _judge(
        self, bundle: str, statement: str, armored: str, found: Demands
    ) -> Dict[str, Any]:
        """Check a statement and its signature; give what it says, and who signed."""
        if found.damaged:
            text = "the trust files of this device cannot be read: " + found.damaged
            raise _untrusted(bundle, "damaged", text[:500])
        if not statement or not armored:
            raise _untrusted(bundle, "empty", "the signature is empty")
        try:
            floors, newest = self.files.floors()
        except (OSError, ValueError, NotOurs) as exc:
            text = "what is outdated is not known: {}".format(exc)
            raise _untrusted(bundle, "damaged", text) from exc
        data = statement.encode("utf-8", "surrogatepass")
        try:
            signer = self._checker.check(data, armored, found.signers, max(time.time(), newest))
            said = load_statement(data)
        except later.signing.BadSignature as exc:
            raise _untrusted(bundle, exc.why, str(exc)) from exc
        except StatementError as exc:
            text = "what was signed is no statement: {}".format(exc)
            raise _untrusted(bundle, "malformed", text) from exc
        if said["bundle"] != bundle:
            text = "the signature is for bundle {}".format(said["bundle"][:12])
            raise _untrusted(bundle, "other-bundle", text)
        return dict(said, signer=signer.label, floor=floors.get(said["name"], 0))

    def vouch(self, bundle: str, statement: str, armored: str) -> Dict[str, Any]:
        """Check a signature and keep it with its statement.

        Raises:
            Refused: It is not good, or says less than this device has settled on.
        """
        found = self.files.demands()
        if not found.signers and not found.require:
            return {
                "verified": False,
                "why": "this device knows no signer, so the signature was not checked",
            }
        said = self._judge(bundle, statement, armored, found)
        goes_back = False
        if "downgrade" in said:
            import hmac  # only to go back

            if not hmac.compare_digest(said["downgrade"], self._challenge):
                raise _untrusted(
                    bundle,
                    "stale-downgrade",
                    "the request to go back was made for another time or device",
                )
            self._challenge = os.urandom(32).hex()
            goes_back = True
        elif found.require and said["counter"] < said["floor"]:
            self.demand(bundle)  # going back to it may have been allowed already
            return dict({key: said[key] for key in _SAID}, verified=True, downgrade=True)
        record = {"statement": statement, "signature": armored, "downgrade": goes_back}
        self._forget_unknown(bundle)
        with self.files.locked():
            floors, newest = self.files.floors()
            if said["made"] > newest:
                self.files.write_floors(floors, said["made"])
            self._vouched.write_whole(bundle, json.dumps(record).encode("utf-8"))
        self._log("trust: {} is signed by {}".format(bundle[:12], said["signer"]))
        return dict({key: said[key] for key in _SAID}, verified=True, downgrade=goes_back)

    def _forget_unknown(self, keep: str) -> None:
        names = self._vouched.names()
        if len(names) >= _MAX_VOUCHED:
            known = set(self._known()) | {keep}
            for name in names:
                if name not in known:
                    self._vouched.remove(name)

    def _entry(self, bundle: str) -> Optional[Dict[str, Any]]:
        limit = 8 * (MAX_SIGNATURE_CHARS + MAX_STATEMENT_CHARS)
        try:
            record = load_json(self._vouched.read(bundle, limit=limit))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, NotOurs) as exc:
            self._log("trust: the statement about {} is damaged: {}".format(bundle[:12], exc))
            return None
        good = isinstance(record, dict) and all(
            isinstance(record.get(key), str) for key in ("statement", "signature")
        )
        return record if good else None

    def _statement(self, bundle: str, found: Demands) -> Dict[str, Any]:
        """What is signed about a bundle, checked anew where anything has changed since."""
        key = (bundle, self._vouched.identity(bundle), self.files.identity())
        kept = self._answers.get(key)
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        entry = self._entry(bundle)
        if entry is None:
            raise _untrusted(
                bundle, "absent", "this device demands a signature, and there is none"
            )
        said = self._judge(bundle, entry["statement"], entry["signature"], found)
        said["downgrade"] = entry.get("downgrade") is True
        if len(self._answers) >= _KEPT_ANSWERS:
            self._answers.clear()
        self._answers[key] = (time.monotonic() + _ANSWER_S, said)
        return said

    def demand(self, bundle: str, name: Optional[str] = None) -> None:
        """Let a bundle pass, or not.

        Args:
            bundle: Its id.
            name: The name in its manifest, where that is known already.

        Raises:
            Refused: ``not-trusted``. This device demands a signature, and there is none that
                counts, or it is about another bundle, or outdated.
        """
        found = self.files.demands()
        if not found.require:
            return
        said = self._statement(bundle, found)
        if name is not None and said["name"] != name:
            raise _untrusted(
                bundle,
                "other-name",
                "the signature calls it {!r}, its manifest {!r}".format(said["name"], name),
            )
        if said["counter"] < said["floor"] and not said["downgrade"]:
            raise _outdated(bundle, said)

    def settle(self, bundle: str) -> None:
        """Take it that ``bundle`` stays: nothing older of its name is taken from now on.

        To be called when a release's probation ends well, and for the current release at start
        unless it is on probation. Doing it again changes nothing; a bundle without a good
        statement changes nothing either.
        """
        try:
            said = self._statement(bundle, self.files.demands())
        except Refused:
            return
        try:
            self._settle(bundle, said)
        except (OSError, ValueError, NotOurs) as exc:
            self._log("trust: what is settled could not be kept: {}".format(exc))

    def _settle(self, bundle: str, said: Dict[str, Any]) -> None:
        with self.files.locked():
            floors, newest = self.files.floors()
            settled = floors.get(said["name"], -1)
            if said["counter"] > settled or (said["downgrade"] and said["counter"] != settled):
                if said["name"] not in floors and len(floors) >= _MAX_FLOORS:
                    self._log("trust: too many names; {} is not kept".format(said["name"]))
                    return
                floors[said["name"]] = said["counter"]
                self.files.write_floors(floors, newest)
                self._log("trust: {} settled on {counter}".format(said["name"], **said))
            entry = self._entry(bundle)
            if said["downgrade"] and entry is not None:
                entry["downgrade"] = False  # it served; going back again is asked again
                self._vouched.write_whole(bundle, json.dumps(entry).encode("utf-8"))

    def describe(self) -> Dict[str, Any]:
        """What is demanded, for hosts and people; no secret is in it."""
        found = self.files.demands()
        try:
            floors = self.files.floors()[0]
        except (OSError, ValueError, NotOurs):
            floors = {}
        return {
            "is_set": found.is_set,
            "require": found.require,
            "remote": found.remote,
            "damaged": found.damaged[:500],
            "signers": [
                {"who": signer.label, "type": signer.key_type, "revoked": signer.revoked}
                for signer in found.signers
            ],
            "floors": floors,
            "line_key": self.files.has_line_key(),
            "checks_with": self._checker.tool or "python (ssh-ed25519 only)",
            "signed": [name for name in self._vouched.names() if is_sha256(name)],
        }


def _outdated(bundle: str, said: Dict[str, Any]) -> Refused:
    return _untrusted(
        bundle,
        "outdated",
        "its counter is {}, and this device has settled on {} for {!r}".format(
            said["counter"], said["floor"], said["name"]
        ),
    )
