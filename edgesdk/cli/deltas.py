"""Deltas on the command line: where bases are looked for, and what was saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.cli.devicelink import short_id
from edgesdk.cli.output import size_text
from edgesdk.settings import Settings

if TYPE_CHECKING:
    from edgesdk.deploy.delta_bases import Bases
    from edgesdk.deploy.values import Deployment

__all__ = ["delta_text", "find_bases"]


def find_bases(settings: Settings) -> Bases:
    """Find where blobs may be that a device holds: in the cache, and in earlier runs."""
    from edgesdk.deploy.delta_bases import Bases

    return Bases(
        cache=settings.cache_dir if settings.cache_size else None,
        budget_bytes=settings.cache_size,
        folders=[settings.runs_dir],
    )


def delta_text(deployment: Deployment) -> str | None:
    """Say what deltas saved, and against what they were; None where there was none."""
    if not deployment.deltas:
        return None
    sent = size_text(sum(delta.sent_bytes for delta in deployment.deltas))
    whole = size_text(sum(delta.bytes for delta in deployment.deltas))
    releases = dict.fromkeys(each for delta in deployment.deltas for each in delta.against)
    named = ", ".join(short_id(each) for each in releases)
    return f"{sent} instead of {whole}, against release {named}"
