"""A rule that backends which read ONNX share: which operator sets they know."""

from __future__ import annotations

from edgesdk.backends.base import WhyNot
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import BackendProfile

__all__ = ["knows_the_version"]


def knows_the_version(profile: BackendProfile) -> WhyNot:
    """Refuse operators newer than the newest opset of ``profile``.

    An older operator in a newer form is taken: the build lowers it.
    """

    def why_not(node: NodeFacts) -> str | None:
        since, newest = node.since_version, profile.max_opset
        if newest is None or since is None or node.domain not in ("", "ai.onnx"):
            return None
        if since > newest and not _existed(node.op, newest):
            return (
                f"{node.op} exists since opset {since}; {profile.runtime} "
                f"{profile.runtime_version} ends at {newest}"
            )
        return None

    return why_not


def _existed(op: str, opset: int) -> bool:
    """Say whether the default domain had ``op`` at ``opset``."""
    import onnx.defs

    try:
        onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return False
    return True
