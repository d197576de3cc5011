"""From one family file to its targets: what fields say to each other, checked once.

The shape was checked before (`edgesdk.profiles.schema`). Here references, ranges between fields
and contradictions are checked and every variant gets what it shares with its family. After this
nobody needs to look again.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgesdk.errors import ProfileError
from edgesdk.near import suggest
from edgesdk.profiles.compilers import COMPILERS_FOLDER, compiler_files, load_compiler_rules
from edgesdk.profiles.limits import LIMITS_FOLDER, limits_files, load_limits
from edgesdk.profiles.provenance import spread_provenance
from edgesdk.profiles.rules import RULES_FOLDER, load_scheme_rules, rules_files
from edgesdk.profiles.values import (
    AgentNeeds,
    BackendProfile,
    Identify,
    Provenance,
    QuantScheme,
    Speed,
    TargetProfile,
    content_digest,
    frozen_options,
)
from edgesdk.yaml_file import read_yaml

if TYPE_CHECKING:
    from edgesdk.profiles.schema import (
        BackendChange,
        BackendModel,
        FamilyModel,
        SchemeModel,
        SpeedModel,
        VariantModel,
    )

__all__ = ["load_family"]

_WHAT = "target profile"
_INTEGER_PRECISIONS = ("int8", "int16x8")
#: Fields of a backend that are figures: somebody has to say where they come from.
_BACKEND_FIGURES = (
    "precisions",
    "scheme",
    "runtime_version",
    "max_opset",
    "max_ir",
    "speed",
)
_IDENTIFY_FIELDS = tuple(field.name for field in dataclasses.fields(Identify))


def _wrong(
    path: Path, key: str, problem: str, *, hint: str = "", **facts: object
) -> ProfileError:
    return ProfileError(
        f"cannot use {_WHAT} {path}: {key} {problem}",
        hint=hint,
        path=str(path),
        key=key,
        **facts,
    )


def _check_unique(path: Path, key: str, values: Sequence[str]) -> None:
    for value, count in Counter(values).items():
        if count > 1:
            raise _wrong(path, key, f"has {value} twice (expected once)")


def _check_references(path: Path, model: FamilyModel) -> None:
    """Check that names are unique and that variants change only what the family has."""
    backend_ids = [backend.id for backend in model.backends]
    _check_unique(path, "backends", backend_ids)
    _check_unique(path, "variants", [variant.name for variant in model.variants])
    defaults = [variant.name for variant in model.variants if variant.default]
    if len(defaults) > 1:
        raise _wrong(path, "variants", f"have {len(defaults)} defaults (expected one at most)")
    for index, variant in enumerate(model.variants):
        for key, ids in (
            (f"variants[{index}].backends", list(variant.backends)),
            (f"variants[{index}].without_backends", variant.without_backends),
        ):
            for backend_id in ids:
                if backend_id not in backend_ids:
                    raise _wrong(
                        path,
                        f"{key}: {backend_id}",
                        f"is no backend of the family (it has {', '.join(backend_ids)})",
                        hint=suggest(backend_id, backend_ids),
                    )
        both = set(variant.backends) & set(variant.without_backends)
        if both:
            raise _wrong(
                path,
                f"variants[{index}].without_backends",
                f"drops {min(both)}, which variants[{index}].backends changes",
            )
        if set(variant.without_backends) == set(backend_ids):
            raise _wrong(path, f"variants[{index}].without_backends", "leaves no backend")


def _check_contest(
    path: Path, key: str, contest: Sequence[str], backend_ids: Sequence[str]
) -> None:
    """Check that a contest is between backends that are there, in their order."""
    for backend_id in contest:
        if backend_id not in backend_ids:
            raise _wrong(
                path,
                f"{key}: {backend_id}",
                f"is no backend here (there are {', '.join(backend_ids)})",
                hint=suggest(backend_id, backend_ids)
                or "a variant that drops a backend needs a contest of its own; [] is none",
            )
    _check_unique(path, key, contest)
    if len(contest) == 1:
        raise _wrong(path, key, f"has {contest[0]} alone (expected two or more, or none)")
    ordered = sorted(contest, key=list(backend_ids).index)
    if list(contest) != ordered:
        raise _wrong(
            path,
            key,
            f"has the order {', '.join(contest)} (expected that of backends, which a tie goes "
            f"by: {', '.join(ordered)})",
        )


def _scheme(model: SchemeModel | None, rules_folder: Path) -> QuantScheme | None:
    if model is None:
        return None
    return QuantScheme(
        activations=model.activations,
        weights=model.weights,
        rules=load_scheme_rules(model.rules, folder=rules_folder),
        reduce_range=model.reduce_range,
    )


def _merged(model: BackendModel, change: BackendChange | None) -> BackendModel:
    """Lay what a variant changes over what the family says."""
    if change is None:
        return model
    return model.model_copy(
        update={key: getattr(change, key) for key in change.model_fields_set}
    )


def _check_backend(path: Path, key: str, model: BackendModel) -> None:
    _check_unique(path, f"{key}.precisions", model.precisions)
    _check_unique(path, f"{key}.quirks", model.quirks)
    whole = [name for name in model.precisions if name in _INTEGER_PRECISIONS]
    if whole and model.scheme is None:
        raise _wrong(path, f"{key}.scheme", f"is missing (expected one, as it has {whole[0]})")
    if not whole and model.scheme is not None:
        raise _wrong(path, f"{key}.scheme", "is given, but no precision is a whole number")
    if model.scheme is not None:
        known = sorted(rules_files(path.parent / RULES_FOLDER))
        if model.scheme.rules not in known:
            raise _wrong(
                path,
                f"{key}.scheme.rules",
                f"is {model.scheme.rules!r}, and no file has that name "
                f"(expected one of {', '.join(known)})",
                hint=suggest(model.scheme.rules, known),
            )
    for name, named, files in (
        ("compiler", model.compiler, compiler_files(path.parent / COMPILERS_FOLDER)),
        ("limits", model.limits, limits_files(path.parent / LIMITS_FOLDER)),
    ):
        if named is not None and named not in files:
            raise _wrong(
                path,
                f"{key}.{name}",
                f"is {named!r}, and no file has that name "
                f"(expected one of {', '.join(sorted(files))})",
                hint=suggest(named, sorted(files)),
            )
    for ceiling in ("max_opset", "max_ir"):
        if getattr(model, ceiling) is not None and model.runtime_version is None:
            raise _wrong(
                path,
                f"{key}.{ceiling}",
                "is given without runtime_version (expected the release that has this ceiling)",
            )


def _check_agent(path: Path, key: str, agent: AgentNeeds) -> None:
    """Check that an agent that can be reached has a Python, and that there is none without."""
    if agent.reach and not agent.python:
        raise _wrong(path, f"{key}.python", "is missing (expected one, as reach is given)")
    if agent.python and not agent.reach:
        raise _wrong(path, f"{key}.python", "is given, but reach names no way to an agent")


def _backend(model: BackendModel, folder: Path) -> BackendProfile:
    return BackendProfile(
        id=model.id,
        kind=model.kind,
        runtime=model.runtime,
        accelerator=model.accelerator,
        precisions=tuple(model.precisions),
        scheme=_scheme(model.scheme, folder / RULES_FOLDER),
        runtime_version=model.runtime_version or "",
        max_opset=model.max_opset,
        max_ir=model.max_ir,
        requirement=model.requirement,
        options=frozen_options(model.options),
        quirks=tuple(model.quirks),
        compiler=(
            load_compiler_rules(model.compiler, folder=folder / COMPILERS_FOLDER)
            if model.compiler is not None
            else None
        ),
        limits=(
            load_limits(model.limits, folder=folder / LIMITS_FOLDER)
            if model.limits is not None
            else None
        ),
        speed=_speed(model.speed),
    )


def _speed(model: SpeedModel | None) -> Speed | None:
    if model is None:
        return None
    return Speed(
        gmacs_per_s=MappingProxyType(
            {str(key): value for key, value in model.gmacs_per_s.items()}
        ),
        move_mb_per_s=model.move_mb_per_s,
        copy_mb_per_s=model.copy_mb_per_s,
        launch_us=model.launch_us,
    )


def _identify(family: FamilyModel, variant: VariantModel) -> Identify:
    merged = family.identify.model_copy(
        update={
            name: getattr(variant.identify, name) for name in variant.identify.model_fields_set
        }
    )
    return Identify(**{name: tuple(getattr(merged, name)) for name in _IDENTIFY_FIELDS})


def _figures_of_backend(backend_id: str, model: BackendModel | BackendChange) -> Iterator[str]:
    for name in _BACKEND_FIGURES:
        if name in model.model_fields_set and getattr(model, name) is not None:
            yield f"backends.{backend_id}.{name}"


def _figures_of_family(family: FamilyModel) -> tuple[str, ...]:
    """List, by path, the figures a family file states for all its variants."""
    paths = [] if family.agent.python is None else ["agent.python"]
    paths += [f"identify.{name}" for name in _IDENTIFY_FIELDS if getattr(family.identify, name)]
    for backend in family.backends:
        paths += _figures_of_backend(backend.id, backend)
    return (*paths, *(["contest"] if family.contest else []))


def _figures_of_variant(variant: VariantModel) -> tuple[str, ...]:
    """List, by path, the figures a variant states itself."""
    paths = [] if variant.ram_bytes is None else ["ram_bytes"]
    paths += ["agent.python"] if "python" in variant.agent.model_fields_set else []
    paths += [
        f"identify.{name}" for name in _IDENTIFY_FIELDS if getattr(variant.identify, name)
    ]
    for backend_id, change in variant.backends.items():
        paths += _figures_of_backend(backend_id, change)
    return (*paths, *(["contest"] if variant.contest else []))


def _figures_of_target(profile: TargetProfile) -> Iterator[str]:
    """List, by path and in order, the figures that hold for one target."""
    if profile.ram_bytes is not None:
        yield "ram_bytes"
    if profile.agent.python:
        yield "agent.python"
    for name in _IDENTIFY_FIELDS:
        if getattr(profile.identify, name):
            yield f"identify.{name}"
    for backend in profile.backends:
        for name in _BACKEND_FIGURES:
            if getattr(backend, name):
                yield f"backends.{backend.id}.{name}"
    if profile.contest:
        yield "contest"


def _target(
    path: Path, family: FamilyModel, index: int, shared: dict[str, Provenance]
) -> TargetProfile:
    """Make one variant a target of its own."""
    variant = family.variants[index]
    key = f"variants[{index}]"
    backends = []
    for model in family.backends:
        if model.id not in variant.without_backends:
            merged = _merged(model, variant.backends.get(model.id))
            _check_backend(path, f"{key}.backends.{model.id}", merged)
            backends.append(_backend(merged, path.parent))
    contest = family.contest if variant.contest is None else variant.contest
    _check_contest(path, f"{key}.contest", contest, [backend.id for backend in backends])
    own = spread_provenance(
        path,
        f"{key}.provenance",
        variant.provenance,
        _figures_of_variant(variant),
        what=_WHAT,
    )
    changed = variant.agent.model_fields_set
    agent = AgentNeeds(
        python=(variant.agent if "python" in changed else family.agent).python or "",
        reach=tuple((variant.agent if "reach" in changed else family.agent).reach),
    )
    _check_agent(path, f"{key}.agent", agent)
    profile = TargetProfile(
        name=variant.name,
        family=family.family,
        vendor=family.vendor,
        title=variant.title,
        default=variant.default,
        ram_bytes=variant.ram_bytes,
        backends=tuple(backends),
        agent=agent,
        identify=_identify(family, variant),
        provenance=(),
        notes=" ".join(f"{family.notes} {variant.notes}".split()),
        source=path,
        digest="",
        contest=tuple(contest),
    )
    known = {**shared, **own}
    provenance = tuple(known[figure] for figure in _figures_of_target(profile))
    profile = dataclasses.replace(profile, provenance=provenance)
    return dataclasses.replace(profile, digest=content_digest(profile))


def load_family(path: Path) -> tuple[TargetProfile, ...]:
    """Read one family file and give its targets, in the order of its variants.

    Raises:
        ProfileError: The file cannot be read, or something in it is unknown, out of range or
            contradicts something else; the text names file and key.
    """
    from edgesdk.profiles.schema import parse_family

    content = read_yaml(
        path,
        what=_WHAT,
        error=ProfileError,
        expected="a mapping with schema, family, ...",
    )
    family = parse_family(path, content)
    _check_references(path, family)
    for index, backend in enumerate(family.backends):
        _check_backend(path, f"backends[{index}]", backend)
    _check_contest(path, "contest", family.contest, [each.id for each in family.backends])
    shared = spread_provenance(
        path, "provenance", family.provenance, _figures_of_family(family), what=_WHAT
    )
    return tuple(_target(path, family, index, shared) for index in range(len(family.variants)))
