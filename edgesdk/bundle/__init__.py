"""The bundle: the immutable, content-addressed thing that is built, verified and deployed.

A folder with ``manifest.json`` (canonical bytes, whose SHA-256 is the bundle's id) and
``blobs/<sha256>``. The build side writes it, the device side reads it; they meet only here.
"""

from __future__ import annotations

from edgesdk.bundle.export import export_bundle
from edgesdk.bundle.store import Bundle, is_bundle_folder, read_bundle, verify_bundle
from edgesdk.bundle.writer import BundleWriter

__all__ = [
    "Bundle",
    "BundleWriter",
    "export_bundle",
    "is_bundle_folder",
    "read_bundle",
    "verify_bundle",
]
