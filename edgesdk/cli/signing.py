"""Signing what is deployed, for devices that demand it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgesdk.errors import InputError

if TYPE_CHECKING:
    from edgesdk.cli.deployjob import Job
    from edgesdk.devices.session import Session

__all__ = ["allow_older", "sign_job"]


def sign_job(job: Job, *, key: str | None, allow_downgrade: bool) -> None:
    """Sign every bundle that may be sent, in its folder, before the device is reached.

    A bundle that is to be taken although it is older keeps the signature it has.

    Raises:
        InputError: It cannot be signed, or what is asked for makes no sense.
        OutputError: A bundle's folder cannot be written.
    """
    from edgesdk.bundle.signing import sign_bundle

    if allow_downgrade and (key is None or job.competitors):
        seen = "nobody signs the request" if key is None else "a contest builds new bundles"
        raise InputError(
            f"cannot go back to an older bundle: {seen}",
            hint="give the bundle's folder, and --sign KEY with a key that the device knows",
        )
    if key is None or allow_downgrade:
        return
    now_s = int(time.time())  # the same for all: none of them outdates another
    entrants = [(each.entrant.bundle, each.floats) for each in job.competitors]
    wanted = [job.bundle, job.floats, *(bundle for pair in entrants for bundle in pair)]
    for bundle in {each.id: each for each in wanted if each is not None}.values():
        sign_bundle(bundle, key=key, counter=now_s)


def allow_older(session: Session, job: Job, *, key: str | None) -> None:
    """Have the device take the job's bundle although it has settled on a newer one.

    Raises:
        InputError: It cannot be signed.
        TrustError: The device does not take it on that key's word.
    """
    from edgesdk.bundle.signing import read_signature
    from edgesdk.deploy.trust import allow_downgrade

    if key is None:
        return
    held = read_signature(job.bundle)
    allow_downgrade(
        session,
        bundle=job.bundle.id,
        name=job.bundle.name,
        key=key,
        counter=None if held is None else held.counter,
    )
