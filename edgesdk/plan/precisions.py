"""Plans for a contest of precisions: what a device shall choose from by measuring.

Each precision is a build of its own, and where the target lets backends compete, each backend
competes in each of them. The most exact come first, as a tie goes to who comes first: what is
not shown to be faster is not worth what it loses.
"""

from __future__ import annotations

from dataclasses import replace

from edgesdk.errors import PlacementError, RecipeError
from edgesdk.model.open import OpenedModel
from edgesdk.plan.contest import Contender, plan_contest
from edgesdk.plan.facts import model_facts
from edgesdk.plan.planner import plan_build
from edgesdk.plan.recipe import Precision, Recipe
from edgesdk.plan.values import BuildPlan
from edgesdk.profiles.values import TargetProfile

__all__ = ["NOISE_LIMIT", "ONE_POINT", "plan_precisions"]

#: What may be lost, of power of the error over that of the answer (16 dB), where there are no
#: labels and nobody names a limit; the same as where a build chooses by itself.
NOISE_LIMIT = 0.025
#: The same where there are labels: one point of the metric.
ONE_POINT = 0.01


def plan_precisions(
    opened: OpenedModel,
    profile: TargetProfile,
    recipe: Recipe,
    *,
    calibrated: bool,
    labelled: bool,
    backends: bool = True,
) -> tuple[Contender, ...]:
    """Plan a build for each precision that a device shall choose from.

    Args:
        opened: The float model.
        profile: The target; a precision that none of its backends has does not compete.
        recipe: What the user wants but for the precision.
        calibrated: Whether there is calibration data; int8 takes its scales as it goes without.
        labelled: Whether there are labels to bound the loss on; else it is bounded by distance.
        backends: Whether the backends of the target's contest compete too.

    Returns:
        All contestants, those that are out too, the most exact precision first.

    Raises:
        RecipeError: Not even the float model can be planned, for a mistake in the recipe.
        PlacementError: No precision can be placed on the target.
    """
    whole: Precision = "int8" if calibrated else "int8-dynamic"
    asked: tuple[Precision, ...] = ("fp32", "fp16", whole)
    found: list[Contender] = []
    first_error: PlacementError | RecipeError | None = None
    for precision in asked:
        if not any(precision in each.precisions for each in profile.backends):
            continue
        own = replace(recipe, precision=precision)
        if precision == "fp32":
            own = replace(own, max_drop=None)
        elif recipe.max_drop is None:  # a build that breaks it does not compete
            own = replace(own, max_drop=ONE_POINT if labelled else NOISE_LIMIT)
        try:
            plan = plan_build(model_facts(opened, profile, own), profile, own)
        except (PlacementError, RecipeError) as exc:
            first_error = first_error or exc
            found.append(_out(profile, own, precision, str(exc)))
            continue
        of_backends = plan_contest(opened, profile, own, known=plan) if backends else ()
        if not any(each.plan is not None for each in of_backends):
            of_backends = (Contender(backend=_main_backend(plan), recipe=own, plan=plan),)
        found += [replace(each, precision=precision) for each in of_backends]
    if first_error is not None and all(each.plan is None for each in found):
        raise first_error
    return tuple(found)


def _out(profile: TargetProfile, recipe: Recipe, precision: str, why: str) -> Contender:
    able = [each.id for each in profile.backends if precision in each.precisions]
    return Contender(
        backend=able[0], recipe=recipe, plan=None, precision=precision, why_out=why
    )


def _main_backend(plan: BuildPlan) -> str:
    """Name the backend that runs the most nodes; the first of equals."""
    counts = plan.nodes_by_backend
    return max(counts, key=lambda name: counts[name])
