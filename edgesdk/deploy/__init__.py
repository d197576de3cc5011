"""Deploy: send what is missing, prove it on the device, activate; roll back."""

from __future__ import annotations

from edgesdk.deploy.activate import Proven, Standing, activate_bundle
from edgesdk.deploy.delta_bases import Bases
from edgesdk.deploy.deploy import deploy_bundle, prove_bundle
from edgesdk.deploy.hold import hold_device
from edgesdk.deploy.probation import confirm_release, watch_probation
from edgesdk.deploy.releases import (
    Collected,
    Release,
    RunTiming,
    collect_garbage,
    list_releases,
    rollback,
    run_on_device,
)
from edgesdk.deploy.values import (
    Deployment,
    FinishedPart,
    Probation,
    Returned,
    SelfCheck,
    SentDelta,
)

__all__ = [
    "Bases",
    "Collected",
    "Deployment",
    "FinishedPart",
    "Probation",
    "Proven",
    "Release",
    "Returned",
    "RunTiming",
    "SelfCheck",
    "SentDelta",
    "Standing",
    "activate_bundle",
    "collect_garbage",
    "confirm_release",
    "deploy_bundle",
    "hold_device",
    "list_releases",
    "prove_bundle",
    "rollback",
    "run_on_device",
    "watch_probation",
]
