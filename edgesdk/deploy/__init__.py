"""Deploy: send what is missing, prove it on the device, activate; roll back."""

from __future__ import annotations

from edgesdk.deploy.deploy import deploy_bundle
from edgesdk.deploy.releases import (
    Collected,
    Release,
    RunTiming,
    collect_garbage,
    list_releases,
    rollback,
    run_on_device,
)
from edgesdk.deploy.values import Deployment, SelfCheck

__all__ = [
    "Collected",
    "Deployment",
    "Release",
    "RunTiming",
    "SelfCheck",
    "collect_garbage",
    "deploy_bundle",
    "list_releases",
    "rollback",
    "run_on_device",
]
