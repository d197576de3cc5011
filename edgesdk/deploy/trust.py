"""Signatures between host and device: what it demands, and vouching for a bundle there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgesdk.bundle.signing import Signature, read_signature, sign_statement
from edgesdk.bundle.store import Bundle
from edgesdk.deploy.push import BlobSource
from edgesdk.devices.session import Session
from edgesdk.devices.text import clean_text
from edgesdk.errors import ProtocolError

__all__ = [
    "DeviceTrust",
    "Vouched",
    "allow_downgrade",
    "ask_trust",
    "set_trust",
    "vouch",
    "vouch_for_bundle",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTrust:
    """What a device demands.

    Attributes:
        is_set: Somebody has set it; hosts then may change it only where ``remote`` is true.
        require: Bundles without a good signature are refused.
        remote: Hosts may change all this.
        signers: Whose signatures count, with the fingerprints of their keys.
        revoked: Whose no longer do.
        floors: The lowest counter it takes, by the name of an artifact.
        line_key: Hosts on its serial line must prove that they hold a key.
        checks_with: What checks signatures there.
        damaged: Why what is demanded cannot be read; then nothing is trusted.
        challenge: What a request to go back has to repeat.
    """

    is_set: bool
    require: bool
    remote: bool
    signers: tuple[str, ...]
    revoked: tuple[str, ...]
    floors: Mapping[str, int]
    line_key: bool
    checks_with: str
    damaged: str
    challenge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """What a device made of a signature; ``why`` says why it did not check it."""

    verified: bool
    signer: str | None
    why: str


def ask_trust(session: Session) -> DeviceTrust:
    """Ask a device what it demands.

    Raises:
        LinkError: The link broke, or the agent is too old to know of signatures.
    """
    return _read_trust(session, session.request("trust").meta)


def set_trust(
    session: Session,
    *,
    signers: str | None = None,
    revoked: str | None = None,
    require: bool | None = None,
    remote: bool | None = None,
) -> DeviceTrust:
    """Set what a device demands; None leaves it as it is.

    A host may do this once, on a device where nobody has; after that only where the device
    says so.

    Args:
        session: The device.
        signers: The text of an ``allowed_signers`` file of OpenSSH.
        revoked: Public keys that no longer count, one a line.
        require: Whether bundles must be signed.
        remote: Whether hosts may change this again.

    Raises:
        TrustError: It was set before.
        AuthError: The session is on a line that proves nothing.
        ProtocolError: A list cannot be read, or no key would count.
        LinkError: The link broke.
    """
    values = {"signers": signers, "revoked": revoked, "require": require, "remote": remote}
    asked = {key: value for key, value in values.items() if value is not None}
    return _read_trust(session, session.request("trust", {"set": asked}).meta)


def vouch(session: Session, signature: Signature) -> Vouched:
    """Give a device the signature of a bundle, before the bundle itself.

    Raises:
        TrustError: It does not count there; the hint says what would.
        LinkError: The link broke.
    """
    meta = session.request(
        "vouch",
        {
            "bundle": signature.bundle,
            "statement": signature.statement,
            "signature": signature.armored,
        },
    ).meta
    signer = meta.get("signer")
    return Vouched(
        verified=meta.get("verified") is True,
        signer=clean_text(signer, limit=200) if isinstance(signer, str) else None,
        why=clean_text(meta.get("why", ""), limit=200),
    )


def vouch_for_bundle(session: Session, bundle: BlobSource) -> Vouched | None:
    """Give a device the signature that lies with a bundle, where it looks at signatures.

    Returns:
        None where there is none, or the device ignores them.

    Raises:
        BundleError: What lies there is not the signature of this bundle.
        TrustError: It does not count.
        LinkError: The link broke.
    """
    if session.hello.signatures == "ignored" or not isinstance(bundle, Bundle):
        return None
    signature = read_signature(bundle)
    return None if signature is None else vouch(session, signature)


def allow_downgrade(
    session: Session, *, bundle: str, name: str, key: str, counter: int | None = None
) -> Vouched:
    """Have a device take a bundle that is older than what it has settled on, this once.

    The device gives a random number, and takes the bundle on the signature of a key that it
    knows over that number; so neither the request nor the signature serves again.

    Args:
        session: The device.
        bundle: The bundle's id.
        name: The name in its manifest.
        key: As for `edgesdk.bundle.signing.sign_statement`.
        counter: What the device settles on; None takes the bundle as signed now, so that
            everything signed before is outdated.

    Raises:
        InputError: It cannot be signed.
        TrustError: The signature does not count there.
        LinkError: The link broke.
    """
    challenge = ask_trust(session).challenge
    signature = sign_statement(
        bundle=bundle, name=name, key=key, counter=counter, downgrade=challenge
    )
    return vouch(session, signature)


def _read_trust(session: Session, meta: Mapping[str, Any]) -> DeviceTrust:
    signers, floors, challenge = (meta.get(k) for k in ("signers", "floors", "challenge"))
    if (
        not isinstance(signers, list)
        or not all(isinstance(each, dict) for each in signers)
        or not isinstance(floors, dict)
        or not all(type(value) is int for value in floors.values())
        or not isinstance(challenge, str)
    ):
        raise ProtocolError(
            f"cannot read what {session.device_name} demands: its answer makes no sense"
        )

    def labels(*, revoked: bool) -> tuple[str, ...]:
        found = [each for each in signers if (each.get("revoked") is True) is revoked]
        return tuple(clean_text(each.get("who"), limit=200) for each in found)

    return DeviceTrust(
        is_set=meta.get("is_set") is True,
        require=meta.get("require") is True,
        remote=meta.get("remote") is True,
        signers=labels(revoked=False),
        revoked=labels(revoked=True),
        floors={clean_text(name, limit=128): value for name, value in floors.items()},
        line_key=meta.get("line_key") is True,
        checks_with=clean_text(meta.get("checks_with"), limit=200),
        damaged=clean_text(meta.get("damaged", ""), limit=500),
        challenge=challenge,
    )
