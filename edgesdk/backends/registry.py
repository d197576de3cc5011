"""Find the package that knows a kind of backend."""

from __future__ import annotations

import importlib
import importlib.util

from edgesdk.backends.base import Backend, ModelFacts, RuleBackend
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import BackendProfile

__all__ = ["backend_for"]


def backend_for(profile: BackendProfile, model: ModelFacts) -> Backend:
    """Give the backend of ``profile``, with the rules that apply to ``model``.

    The package is found by the profile's ``kind``; a kind without a package gives a backend
    that takes no node and says that nothing compiles for it.
    """
    name = f"edgesdk.backends.{profile.kind.replace('-', '_')}"
    if not profile.kind.replace("-", "").isalnum() or importlib.util.find_spec(name) is None:
        return _without_compiler(profile)
    backend: Backend = importlib.import_module(name).make_backend(profile, model)
    return backend


def _without_compiler(profile: BackendProfile) -> RuleBackend:
    def why_not(_: NodeFacts) -> str | None:
        return f"this version of edgesdk has no compiler for {profile.kind}"

    return RuleBackend(profile=profile, format="bytes", rules=(why_not,))
