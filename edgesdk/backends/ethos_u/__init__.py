"""An Ethos-U runs what Arm's compiler places on it of an 8-bit TFLite graph.

The rest stays in the same file for the processor: LiteRT on a Linux board, TensorFlow Lite
Micro in firmware. What the compiler takes is data that the profile names
(``targets/compilers``), by accelerator, so that a plan says it without the compiler.
"""

from __future__ import annotations

from edgesdk.backends.base import Backend, CompiledPart, ModelFacts, PartJob, RuleBackend
from edgesdk.backends.ethos_u.mapping import foretell, why_not_placed
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.constraint_values import ConstraintRules
from edgesdk.profiles.values import BackendProfile

__all__ = ["make_backend"]


def make_backend(profile: BackendProfile, model: ModelFacts) -> Backend:
    """Give the rules of this backend for ``model``; the profile names those of its compiler.

    The profile's option ``accelerator`` says which one it is, in the compiler's words.
    """
    rules = profile.compiler
    accelerator = str(profile.options.get("accelerator", ""))
    core = rules.core_of(accelerator) if isinstance(rules, ConstraintRules) else None
    if not isinstance(rules, ConstraintRules) or core is None:
        reason = (
            f"its compiler's rules do not know the accelerator {accelerator!r}"
            if isinstance(rules, ConstraintRules)
            else "its profile names no constraints of a compiler"
        )
        return RuleBackend(profile=profile, format="tflite", rules=(lambda _: reason,))
    graph = model.tflite
    found = {} if graph is None else foretell(graph, rules, core)

    def why_not(node: NodeFacts) -> str | None:
        if graph is None:
            return why_not_placed(node, core)
        return found.get(node.index)

    def compiler(job: PartJob) -> CompiledPart:
        from edgesdk.backends.ethos_u.compiler import compile_part

        return compile_part(job, profile, rules, core)

    return RuleBackend(
        profile=profile,
        format="tflite",
        rules=(why_not,),
        rest_kind="litert",
        compiler=compiler,
    )
