"""From the code in an agent's reply to an exception of our tree."""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.devices.hints import runtime_hint
from edgesdk.devices.text import clean_text, clean_value
from edgesdk.errors import (
    AuthError,
    DataError,
    DeviceError,
    EdgeError,
    FindingsError,
    ProtocolError,
    RolledBackError,
    RuntimeMissing,
    SelfCheckError,
    SpaceError,
    TrustError,
    WorkerError,
)
from edgesdk.wire import codes

__all__ = ["ERROR_OF_CODE", "refusal_error"]

#: The class for every code of `edgesdk.wire.codes.ALL_CODES`; a test holds both lists together.
ERROR_OF_CODE: Mapping[str, type[EdgeError]] = {
    codes.BAD_REQUEST: ProtocolError,
    codes.UNKNOWN_OP: ProtocolError,
    codes.VERSION: ProtocolError,
    codes.BUSY: DeviceError,
    codes.GAP: ProtocolError,
    codes.BAD_HASH: DeviceError,
    codes.BAD_DELTA: DeviceError,
    codes.NOT_FOUND: DeviceError,
    codes.NO_SPACE: SpaceError,
    codes.READ_ONLY: SpaceError,
    codes.DISK_ERROR: DeviceError,
    codes.NO_RUNTIME: RuntimeMissing,
    codes.WORKER_DIED: WorkerError,
    codes.WORKER_TIMEOUT: WorkerError,
    codes.WORKER_FAILED: WorkerError,
    codes.BAD_DATA: DataError,
    codes.CHECK_FAILED: SelfCheckError,
    codes.TOO_SLOW: FindingsError,
    codes.NOT_TRUSTED: TrustError,
    codes.NOT_AUTHENTICATED: AuthError,
    codes.AGENT_BUG: DeviceError,
}

#: For a bundle that the device does not trust, by the word that says why.
_TRUST_HINTS: Mapping[str, str] = {
    "absent": "sign it: `edgesdk bundle sign DIR --key KEY`, or deploy with --sign KEY",
    "empty": "sign it again: `edgesdk bundle sign DIR --key KEY`",
    "unknown-key": "sign with a key that the device knows (`edgesdk trust show` lists them), "
    "or list this one there: `edge-agent trust signers FILE` on the device",
    "outdated": "sign the bundle again to say that it is wanted now, or go back once with "
    "--allow-downgrade --sign KEY",
    "stale-downgrade": "ask again: such a request serves once, on one device",
    "set-before": "log in there and run `edge-agent trust`",
    "damaged": "repair or set it anew with `edge-agent trust` on the device",
}

_HINTS: Mapping[str, str] = {
    codes.UNKNOWN_OP: "the agent there is older than this edgesdk: replace it with "
    "`edgesdk agent install`",
    codes.BUSY: "another command is using this device; try again when it is done, or let "
    "`edgesdk deploy --wait 10min` wait for it",
    codes.BAD_HASH: "send it again; if this repeats, storage or memory of the device is bad",
    codes.BAD_DELTA: "send the blob whole: deploy with --no-delta",
    codes.NOT_FOUND: "`edgesdk releases` lists what the device holds; `edgesdk deploy` puts a "
    "release there",
    codes.NO_SPACE: "`edgesdk gc` removes releases that are not in a slot",
    codes.READ_ONLY: "is the disk mounted read-only, and may that user write to the state "
    "folder?",
    codes.DISK_ERROR: "the storage of the device fails: look at `dmesg` there, and replace its "
    "card or disk",
    codes.WORKER_DIED: "the agent and the active release are unharmed; `edgesdk devices logs` "
    "shows the worker's last words",
    codes.WORKER_TIMEOUT: "give it longer, or try the model on a faster backend",
    codes.WORKER_FAILED: "`edgesdk devices logs` shows what the runtime said",
    codes.CHECK_FAILED: "deploy the bundle again; it is activated once its check vectors pass",
    codes.TOO_SLOW: "the active release is unchanged; `--max-latency` says what it may take",
    codes.NOT_TRUSTED: "sign it with a key that the device knows; `edgesdk trust show` lists "
    "what it demands",
    codes.NOT_AUTHENTICATED: "name the file with the device's key: `key:` in the inventory, or "
    "serial://...?key=FILE; `edge-agent trust key` on the device sets it",
    codes.AGENT_BUG: "please report this with the output of `edgesdk devices logs`",
}

_DOING: Mapping[str, str] = {
    "hello": "greet the agent on",
    "auth": "prove ourselves to",
    "vouch": "vouch for the bundle on",
    "trust": "ask or set what is demanded by",
    "facts": "read the facts of",
    "status": "read the status of",
    "stage": "stage the bundle on",
    "put": "send a blob to",
    "held": "list the blobs on",
    "blocks": "read the blocks of a blob on",
    "assemble": "make a blob from a delta on",
    "commit": "commit the bundle on",
    "finish": "finish the parts on",
    "check": "run the check vectors on",
    "activate": "activate the bundle on",
    "rollback": "roll back",
    "confirm": "confirm the release on",
    "hold": "take hold of",
    "release": "let go of",
    "releases": "list the releases on",
    "gc": "collect garbage on",
    "run": "run the model on",
    "bench": "benchmark the model on",
    "evaluate": "evaluate the model on",
    "pair": "measure two releases in turns on",
    "profile": "ask what ran where on",
    "logs": "read the logs of",
    "ping": "ask for a sign of life of",
    "unload": "unload the model on",
    "shutdown": "stop the agent on",
}

#: Names of an error's own arguments: a device that sends them would make raising it fail.
_NOT_FACTS = ("hint", "problem", "self")


def doing(op: str) -> str:
    """Put an operation into words that go before a device's name."""
    return _DOING.get(op, f"do {op} on")


def refusal_error(op: str, meta: Mapping[str, object], *, device_name: str) -> EdgeError:
    """Give the exception for a reply that says no, in the device's name and words."""
    code = clean_text(meta.get("code"), limit=100)
    detail = clean_text(meta.get("detail", "it gave no reason"), limit=2000)
    raw = clean_value(meta.get("facts", {}))
    facts = dict(raw) if isinstance(raw, dict) else {}
    hint = _HINTS.get(code, "")
    if code == codes.NO_RUNTIME:
        hint = runtime_hint(
            str(facts.get("runtime", "")),
            python=str(facts.get("python", "")),
            machine=str(facts.get("machine", "")),
            executable=str(facts.get("python_executable") or facts.get("executable") or ""),
        )
    if code == codes.NOT_TRUSTED:
        hint = _TRUST_HINTS.get(str(facts.get("why")), hint)
    facts = {
        key: value
        for key, value in facts.items()
        if key.isidentifier() and key not in _NOT_FACTS
    }
    facts |= {"code": code, "device": device_name, "op": op}
    raised = ERROR_OF_CODE.get(code, ProtocolError)
    if isinstance(facts.get("returned_to"), str):
        raised = RolledBackError
        hint = "the release before is current again; `edgesdk devices logs` shows more"
    return raised(f"cannot {doing(op)} {device_name}: {detail}", hint=hint, **facts)
