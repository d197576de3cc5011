"""The slow half of the host side: carry out a plan, and write the bundle that proves itself."""

from __future__ import annotations

from edgesdk.build.pipeline import build_bundle
from edgesdk.build.reference import HostModel, open_reference

__all__ = ["HostModel", "build_bundle", "open_reference"]
