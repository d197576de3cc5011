"""Put into a manifest what a build made: its parts, its origin, what was foretold."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.backends.fallbacks import fallbacks_of
from edgesdk.build.parts import BuiltPart, BuiltParts
from edgesdk.build.provenance import cpu_features, tool_versions
from edgesdk.bundle import BundleWriter
from edgesdk.errors import BuildError
from edgesdk.model.values import SourceModel
from edgesdk.plan import BuildPlan, Recipe
from edgesdk.profiles.values import TargetProfile
from edgesdk.tensors import TensorInfo
from edgesdk.wire.manifest import MANIFEST_SCHEMA, part_file_name, why_bad_limits

if TYPE_CHECKING:
    from edgesdk.data.dataset import Dataset

__all__ = ["manifest_record", "part_record", "refuse_limits", "with_batch"]

_RANGE_SAMPLES = 64


def _values(values: Sequence[TensorInfo]) -> list[dict[str, Any]]:
    return [{"name": v.name, "dtype": v.dtype, "shape": list(v.shape)} for v in values]


def part_record(
    built: BuiltPart,
    index: int,
    *,
    target: TargetProfile,
    recipe: Recipe,
    writer: BundleWriter,
) -> dict[str, Any]:
    """Store a part's files and describe it for the manifest."""
    profile = built.backend.profile
    compiled = built.compiled
    options: dict[str, Any] = {**profile.options, **compiled.options}
    if recipe.threads is not None:
        options["threads"] = recipe.threads
    fallbacks = fallbacks_of(
        target,
        profile,
        part_format=compiled.format,
        has_spare=bool(compiled.spare),
        avoid=recipe.avoid,
    )
    if recipe.threads is not None:
        for each in fallbacks:
            each["options"]["threads"] = recipe.threads
    spare = {}
    if any(each.get("spare") for each in fallbacks):
        files = _files(writer, compiled.spare, index, "onnx")
        spare = {"spare": {"format": "onnx", "files": files}}
    return {
        "index": index,
        "backend": profile.id,
        "runtime": profile.runtime,
        "format": compiled.format,
        "precision": built.precision,
        "files": _files(writer, compiled.files, index, compiled.format),
        "inputs": _values(built.inputs),
        "outputs": _values(built.outputs),
        "options": options,
        "requires": {
            "requirement": profile.requirement,
            "runtime_version": profile.runtime_version,
            "opset": None,
            "ir_version": None,
            **compiled.requires,
        },
        **({"fallbacks": fallbacks} if fallbacks else {}),
        **spare,
    }


def _files(
    writer: BundleWriter, files: Mapping[str, Path], index: int, part_format: str
) -> list[dict[str, Any]]:
    return [
        {
            "role": role,
            "name": part_file_name(index, role, part_format),
            **writer.add_file(path),
        }
        for role, path in files.items()
    ]


def manifest_record(
    source: SourceModel,
    profile: TargetProfile,
    recipe: Recipe,
    plan: BuildPlan,
    *,
    calib: Dataset | None,
    parts: BuiltParts,
    precision: str,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
) -> dict[str, Any]:
    """Describe a bundle: where it comes from, what it takes and gives, what was foretold.

    Parts, check vectors, ``as_built`` and attachments are added by who made them.
    """
    runtimes = [part.backend.profile.runtime for part in parts.parts]
    return {
        "schema": MANIFEST_SCHEMA,
        "name": source.name,
        "precision": precision,
        "model": {
            "name": source.name,
            "format": source.format,
            "sha256": source.sha256,
            "bytes": source.bytes,
            "opset": source.opset,
            "producer": source.producer,
            **({"origin": source.origin.to_json()} if source.origin else {}),
        },
        "target": {
            "name": profile.name,
            "family": profile.family,
            "sha256": profile.digest,
            "python": profile.agent.python or None,
        },
        "recipe": recipe.to_json(),
        "calibration": {"sha256": calib.digest, "input_ranges": _input_ranges(calib)}
        if calib is not None
        else None,
        "inputs": _values(inputs),
        "outputs": _values(outputs),
        "preprocess": recipe.preprocess.to_json() if recipe.preprocess else None,
        "predicted": {
            "nodes_by_backend": plan.nodes_by_backend,
            "share_by_backend": _rounded(plan.share_by_backend),
            "overhead_share": round(plan.overhead_share, 6),
            "parts": [
                {
                    "backend": part.backend,
                    "nodes": len(part.nodes),
                    "share": round(part.share, 6),
                }
                for part in plan.parts
            ],
            "memory_bytes": plan.memory_bytes,
            "assumed": list(plan.assumed),
        },
        "tools": tool_versions(runtimes),
        "cpu_features": cpu_features(),
        **({"limits": recipe.limits.to_json()} if recipe.limits else {}),
    }


def refuse_limits(name: str, manifest: dict[str, Any]) -> None:
    """Refuse limits under which the worker could not even load the parts.

    Raises:
        BuildError: The limits of the recipe make no sense for the parts in ``manifest``.
    """
    why = why_bad_limits(manifest)
    if why:
        raise BuildError(
            f"cannot build {name} with the limits of its recipe: {why}",
            hint="raise it under `limits:`, or leave it out",
        )


def _rounded(shares: dict[str, float] | None) -> dict[str, float]:
    return {name: round(share, 6) for name, share in (shares or {}).items()}


def _input_ranges(calib: Dataset) -> dict[str, Any]:
    """Say what calibration saw, for comparing later data with; over the first samples."""
    from edgesdk.data.range_check import measure_ranges

    ranges = measure_ranges(itertools.islice(calib.samples(), _RANGE_SAMPLES))
    return {name: seen.to_json() for name, seen in ranges.items()}


def with_batch(values: Sequence[TensorInfo], names: Sequence[str]) -> tuple[TensorInfo, ...]:
    """Give values with the leading extent of some taken as 1."""
    return tuple(
        replace(value, shape=(1, *value.shape[1:])) if value.name in names else value
        for value in values
    )
