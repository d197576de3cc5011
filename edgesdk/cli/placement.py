"""What people have to hear of a placement before they believe it: nothing falls back unsaid."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesdk.plan.values import BuildPlan
    from edgesdk.profiles.values import TargetProfile

__all__ = ["idle_notes"]


def idle_notes(profile: TargetProfile, made: BuildPlan) -> tuple[str, ...]:
    """Say in a line that the target's accelerator gets nothing of a model, and why.

    Nothing is said where one of the accelerators gets a node, or there is none.
    """
    accelerators = [backend for backend in profile.backends if backend.accelerator]
    used = made.nodes_by_backend
    if not accelerators or not made.nodes or any(each.id in used for each in accelerators):
        return ()
    best = accelerators[0]
    refused = [(n, r.reason) for n in made.nodes for r in n.refusals if r.backend == best.id]
    text = f"note: {best.id} gets none of the nodes"
    if refused:
        node, reason = refused[0]
        text += f": {reason}"
        if any(other != reason for _, other in refused):
            text += f" (node {node.index} {node.op}; edgesdk plan says why of each)"
    if made.precision not in (*best.precisions, "as-is") and "int8" in best.precisions:
        text += "; --calib DATA builds int8 (a plan needs only --precision int8)"
    return (text,)
