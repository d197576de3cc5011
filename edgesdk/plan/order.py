"""The order in which a target's backends are asked: the profile's, as the recipe wants it."""

from __future__ import annotations

from edgesdk.errors import RecipeError
from edgesdk.near import suggest
from edgesdk.plan.recipe import Recipe
from edgesdk.profiles.values import BackendProfile, TargetProfile

__all__ = ["order_backends"]


def order_backends(profile: TargetProfile, recipe: Recipe) -> list[BackendProfile]:
    """Give the target's backends, best first, as the recipe wants them.

    Those of the target's contest keep their places, and the recipe's contestant has the first
    of these; what the recipe prefers goes before all.

    Raises:
        RecipeError: The recipe names a backend that the target does not have, or avoids all.
    """
    by_id = {entry.id: entry for entry in profile.backends}
    for name in (*recipe.prefer, *recipe.avoid):
        if name not in by_id:
            known = f"its backends are {', '.join(by_id)}"
            near = suggest(name, list(by_id))
            raise RecipeError(
                f"cannot plan for {profile.name}: it has no backend {name!r}",
                hint=f"{near} {known}" if near else known,
                backend=name,
            )
    ranked = _with_contestant(profile, recipe.contestant)
    first = [by_id[name] for name in recipe.prefer]
    rest = [by_id[name] for name in ranked if name not in recipe.prefer]
    kept = [entry for entry in (*first, *rest) if entry.id not in recipe.avoid]
    if not kept:
        raise RecipeError(
            f"cannot plan for {profile.name}: the recipe avoids every backend",
            hint=f"leave one of {', '.join(by_id)}",
        )
    return kept


def _with_contestant(profile: TargetProfile, contestant: str | None) -> list[str]:
    """Give the ids of the profile, with the contestant before the rest of the contest."""
    names = [entry.id for entry in profile.backends]
    if contestant is None:
        return names
    if contestant not in profile.contest:
        raise RecipeError(
            f"cannot plan for {profile.name}: {contestant!r} is not in its contest",
            hint=f"the contest is between {', '.join(profile.contest) or 'none'}",
            backend=contestant,
        )
    places = [place for place, name in enumerate(names) if name in profile.contest]
    ranked = [contestant, *(name for name in profile.contest if name != contestant)]
    for place, name in zip(places, ranked, strict=True):
        names[place] = name
    return names
