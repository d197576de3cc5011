"""From model, target and recipe to a plan that can be read and argued with before a build."""

from __future__ import annotations

from edgesdk.backends.base import ModelFacts
from edgesdk.plan.contest import Contender, plan_contest
from edgesdk.plan.planner import model_facts, plan_build
from edgesdk.plan.recipe import PRECISIONS, Recipe, load_recipe, recipe_schema
from edgesdk.plan.values import BuildPlan, PlannedNode, PlannedPart

__all__ = [
    "PRECISIONS",
    "BuildPlan",
    "Contender",
    "ModelFacts",
    "PlannedNode",
    "PlannedPart",
    "Recipe",
    "load_recipe",
    "model_facts",
    "plan_build",
    "plan_contest",
    "recipe_schema",
]
