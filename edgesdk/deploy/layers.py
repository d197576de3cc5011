"""Run a bundle on a device that is there for looking only: sent, run, removed, never active."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from edgesdk.deploy.deploy import prove_bundle
from edgesdk.deploy.releases import remove_release, run_on_device
from edgesdk.devices.session import Session
from edgesdk.errors import DeviceError, LinkError
from edgesdk.progress import OnProgress, ignore_progress

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.bundle import Bundle
    from edgesdk.deploy.activate import Proven
    from edgesdk.deploy.delta_bases import Bases
    from edgesdk.profiles.values import TargetProfile

__all__ = ["run_for_a_look"]


def run_for_a_look(
    session: Session,
    bundle: Bundle,
    samples: Iterable[dict[str, np.ndarray]],
    *,
    profile: TargetProfile | None = None,
    force_target: bool = False,
    timeout_s: float = 600.0,
    bases: Bases | None = None,
    on_proven: Callable[[Proven], None] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Iterator[dict[str, np.ndarray]]:
    """Send a bundle, run it on samples, and remove it again, however that ends.

    What is current and previous stays so. Where the link breaks it is left behind as a release
    in no slot, which ``edgesdk gc`` removes.

    Args:
        session: The device.
        bundle: What to run.
        samples: Its inputs, by name.
        profile: The target; the device must be one. None asks nothing.
        force_target: Go on where the device is another.
        timeout_s: How long its check and each inference may take there.
        bases: For deltas, see `edgesdk.deploy.deploy.deploy_bundle`.
        on_proven: Told what loaded it there.
        on_progress: Told of every step.

    Raises:
        DeviceError: The device refuses it, or its runtime fails.
        LinkError: The link broke.
    """
    inputs = [value["name"] for value in bundle.manifest["inputs"]]
    try:
        proven = prove_bundle(
            bundle,
            session,
            profile=profile,
            force_target=force_target,
            check_timeout_s=timeout_s,
            bases=bases,
            on_progress=on_progress,
        )
        if on_proven is not None:
            on_proven(proven)
        for sample in samples:
            given = {name: sample[name] for name in inputs}
            yield run_on_device(session, bundle.id, given, timeout_s=timeout_s)[0]
    finally:
        with contextlib.suppress(DeviceError, LinkError):  # what went wrong before is told
            remove_release(session, bundle.id)
