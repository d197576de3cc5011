"""Target profiles: what each kind of device can run, in which numbers, and how to know one.

Profiles are data in ``targets/*.yaml``; see the README there for the format. Reading one is
strict and checks everything at once, so that nobody downstream has to. Nothing heavy is
imported before a profile is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesdk.profiles.catalog import Catalog, default_target, find_target, load_catalog
from edgesdk.profiles.identify import why_not_target
from edgesdk.profiles.rules import load_scheme_rules
from edgesdk.profiles.values import (
    AgentNeeds,
    BackendProfile,
    Identify,
    Provenance,
    QdqPlacement,
    QuantScheme,
    SchemeRules,
    TargetProfile,
    profile_content,
)

if TYPE_CHECKING:
    from edgesdk.profiles.schema import profile_schema, rules_schema

__all__ = [
    "AgentNeeds",
    "BackendProfile",
    "Catalog",
    "Identify",
    "Provenance",
    "QdqPlacement",
    "QuantScheme",
    "SchemeRules",
    "TargetProfile",
    "default_target",
    "find_target",
    "load_catalog",
    "load_scheme_rules",
    "profile_content",
    "profile_schema",
    "rules_schema",
    "why_not_target",
]


def __getattr__(name: str) -> Any:
    """Load what needs pydantic on first use."""
    if name in ("profile_schema", "rules_schema"):
        from edgesdk.profiles import schema

        return getattr(schema, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
