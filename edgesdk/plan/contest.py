"""Plans for a target's contest: one for each backend that a measurement has to choose from.

Which runtime of a processor is the fastest for a model is found by measuring there, so each
contestant gets the whole plan with itself before the others. One that gets no node, or the
same placement as another, has nothing to measure and drops out here, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgesdk.errors import PlacementError, RecipeError
from edgesdk.model.open import OpenedModel
from edgesdk.model.tflite import OpenedTflite
from edgesdk.plan.facts import model_facts
from edgesdk.plan.planner import plan_build
from edgesdk.plan.recipe import Recipe
from edgesdk.plan.values import BuildPlan
from edgesdk.profiles.values import TargetProfile

__all__ = ["Contender", "plan_contest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One backend of a contest.

    Attributes:
        backend: Its id.
        recipe: The user's, with this backend before the others of the contest.
        plan: What would be built for it; None where it is out.
        why_out: Why there is nothing of it to measure; empty where there is.
        precision: What it competes in; empty where all have the same.
    """

    backend: str
    recipe: Recipe
    plan: BuildPlan | None
    why_out: str = ""
    precision: str = ""


def plan_contest(
    opened: OpenedModel | OpenedTflite,
    profile: TargetProfile,
    recipe: Recipe,
    *,
    known: BuildPlan | None = None,
) -> tuple[Contender, ...]:
    """Plan a build for every backend of the target's contest, in the profile's order.

    Args:
        opened: The model.
        profile: The target.
        recipe: What the user wants, with its precision decided. One that prefers a backend
            has decided itself, so there is no contest.
        known: The plan of these without a contest, if it was made.

    Returns:
        All contestants, those that are out too; nothing where the target has no contest.
    """
    if recipe.prefer:
        return ()
    contenders: list[Contender] = []
    for backend in profile.contest:
        # the first goes before the others anyway: its plan is the one without a contest
        is_first = backend == profile.contest[0]
        own = replace(recipe, contestant=None if is_first else backend)
        if backend in recipe.avoid:
            contenders.append(_out(backend, own, "the recipe avoids it"))
            continue
        try:
            made = known if known is not None and is_first else _plan(opened, profile, own)
        except (PlacementError, RecipeError) as exc:
            contenders.append(_out(backend, own, str(exc)))
            continue
        why = _why_out(backend, made, contenders)
        contenders.append(
            _out(backend, own, why)
            if why
            else Contender(backend=backend, recipe=own, plan=made)
        )
    return tuple(contenders)


def _plan(
    opened: OpenedModel | OpenedTflite, profile: TargetProfile, recipe: Recipe
) -> BuildPlan:
    return plan_build(model_facts(opened, profile, recipe), profile, recipe)


def _out(backend: str, recipe: Recipe, why: str) -> Contender:
    return Contender(backend=backend, recipe=recipe, plan=None, why_out=why)


def _why_out(backend: str, made: BuildPlan, before: Sequence[Contender]) -> str:
    if not any(node.backend == backend for node in made.nodes):
        return _takes_nothing(backend, made)
    where = [node.backend for node in made.nodes]
    for other in before:
        if other.plan is not None and [node.backend for node in other.plan.nodes] == where:
            return f"it gets the same nodes as beside {other.backend}"
    return ""


def _takes_nothing(backend: str, made: BuildPlan) -> str:
    """Say why a backend gets none of the nodes, in the words it has for the first of them."""
    reasons = {
        node.index: refusal.reason
        for node in made.nodes
        for refusal in node.refusals
        if refusal.backend == backend
    }
    if not reasons:
        return "it gets none of the nodes"
    index, reason = next(iter(reasons.items()))
    if set(reasons.values()) == {reason}:
        return f"it gets none of the nodes: {reason}"
    return f"it gets none of the nodes; node {index}: {reason}"
