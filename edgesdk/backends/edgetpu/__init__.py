"""The Edge TPU runs what its compiler maps of an 8-bit TFLite graph; LiteRT runs the rest.

What the compiler takes is data that the profile names (``targets/compilers``), so that a plan
can say it without the compiler, which is closed and runs on x86 computers only.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.backends.base import Backend, CompiledPart, ModelFacts, PartJob, RuleBackend
from edgesdk.backends.edgetpu.mapping import foretell, say
from edgesdk.backends.edgetpu.nodes import strand, why_not_mapped
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.compiler_values import CompilerRules
from edgesdk.profiles.values import BackendProfile

__all__ = ["make_backend"]


def make_backend(profile: BackendProfile, model: ModelFacts) -> Backend:
    """Give the rules of this backend for ``model``; the profile names those of its compiler."""
    rules = profile.compiler
    if not isinstance(rules, CompilerRules):
        reason = "its profile names no compiler rules"
        return RuleBackend(profile=profile, format="tflite", rules=(lambda _: reason,))
    graph = model.tflite
    found = {} if graph is None else foretell(graph, rules)

    def why_not(node: NodeFacts) -> str | None:
        if graph is None:
            return why_not_mapped(node, rules)
        return say(found[node.index], rules) if node.index in found else None

    def why_not_here(seen: ModelFacts, refused: Mapping[int, str]) -> Mapping[int, str]:
        return strand(seen, refused, rules) if graph is None else {}

    def compiler(job: PartJob) -> CompiledPart:
        from edgesdk.backends.edgetpu.compiler import compile_part

        return compile_part(job, profile, rules)

    return RuleBackend(
        profile=profile,
        format="tflite",
        rules=(why_not,),
        position_rules=(why_not_here,),
        rest_kind="litert",
        compiler=compiler,
    )
