"""Compiler rules: what a compiler takes of a TFLite graph, from files under ``compilers``.

There are two forms. Of compilers whose makers publish a table of operators and a log that says
of each operator why it was left out, the words of the log stand in the file too, so that what
is foretold and what the log says can be compared (`CompilerRules`). Of compilers that look at
each operator by itself and tell their limits, the file says ``form: constraints`` and has
those, by accelerator (`ConstraintRules`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edgesdk.errors import ProfileError
from edgesdk.profiles.compiler_values import CompilerRules, OperatorLimits, ParameterLayout
from edgesdk.profiles.constraint_values import ConstraintRules, Core, OperatorConstraints
from edgesdk.profiles.named_files import find_named, named_files
from edgesdk.profiles.provenance import spread_provenance
from edgesdk.yaml_file import read_yaml

if TYPE_CHECKING:
    from edgesdk.profiles.compiler_schema import CompilerModel, Dtype, LimitsModel
    from edgesdk.profiles.constraint_schema import ConstraintModel, ConstraintsModel

__all__ = ["COMPILERS_FOLDER", "compiler_files", "load_compiler_rules"]

#: Where the files lie, in the folder of the family files that name them.
COMPILERS_FOLDER = "compilers"
_WHAT = "compiler rules"
_CORE_KEYS = ("accelerators", "types", "bare_types", "zero_points", "result_zero_points")


def compiler_files(folder: Path | None = None) -> dict[str, Path]:
    """List the files there are, by name; see `named_files`."""
    return named_files(COMPILERS_FOLDER, folder)


def load_compiler_rules(
    name: str, *, folder: Path | None = None
) -> CompilerRules | ConstraintRules:
    """Read and check the rules called ``name``.

    Args:
        name: The file's name, without its suffix.
        folder: A folder with files of the user's own, which go before the shipped ones.

    Raises:
        ProfileError: There are none of that name, or something in the file is unknown, out of
            range or contradicts something else; the text names file and key.
    """
    return _load(*find_named(name, compiler_files(folder), what=_WHAT))


@lru_cache(maxsize=16)
def _load(path: Path, _state: tuple[int, ...]) -> CompilerRules | ConstraintRules:
    """Read the rules of a file; a changed file is read anew."""
    content = read_yaml(
        path, what=_WHAT, error=ProfileError, expected="a mapping with schema, name, ..."
    )
    return _constraints(path, content) if "form" in content else _rules(path, content)


def _rules(path: Path, content: dict[str, Any]) -> CompilerRules:
    from edgesdk.profiles.compiler_schema import CompilerModel
    from edgesdk.profiles.schema import parse_model

    model = parse_model(path, content, CompilerModel, what=_WHAT)
    _check_name(path, model.name)
    _check_statuses(path, model)
    spread = spread_provenance(
        path, "provenance", model.provenance, tuple(_figures(model)), what=_WHAT
    )
    return CompilerRules(
        name=model.name,
        version=model.version,
        runtime=model.runtime,
        program=model.program,
        how_to_get=model.how_to_get,
        compiled_op=model.compiled_op,
        types=tuple(model.types),
        inner_axes=model.inner_axes,
        cache_bytes=model.cache_bytes,
        layout=ParameterLayout(**model.layout.model_dump()),
        versions=MappingProxyType(dict(model.versions)),
        sized_by=MappingProxyType({op: tuple(each) for op, each in model.sized_by.items()}),
        statuses=MappingProxyType({str(kind): text for kind, text in model.statuses.items()}),
        operators=MappingProxyType({op: _limits(each) for op, each in model.operators.items()}),
        assumed=tuple(path for path, entry in spread.items() if entry.kind == "assumed"),
    )


def _constraints(path: Path, content: dict[str, Any]) -> ConstraintRules:
    from edgesdk.profiles.constraint_schema import ConstraintsModel
    from edgesdk.profiles.schema import parse_model

    model = parse_model(path, content, ConstraintsModel, what=_WHAT)
    _check_name(path, model.name)
    named = [name for core in model.cores.values() for name in core.accelerators]
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        raise ProfileError(
            f"cannot use {_WHAT} {path}: cores have {twice[0]} twice (expected once)",
            path=str(path),
            key="cores",
        )
    spread = spread_provenance(
        path, "provenance", model.provenance, tuple(_constraint_figures(model)), what=_WHAT
    )
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return ConstraintRules(
        name=model.name,
        digest=hashlib.sha256(canonical.encode("utf-8")).hexdigest(),
        version=model.version,
        program=model.program,
        module=model.module,
        how_to_get=model.how_to_get,
        compiled_op=model.compiled_op,
        cores=tuple(
            Core(
                name=name,
                accelerators=tuple(core.accelerators),
                types=tuple(core.types),
                bare_types=tuple(core.bare_types),
                zero_points=_zeros(core.zero_points),
                result_zero_points=_zeros(core.result_zero_points),
                operators=MappingProxyType(
                    {op: _constraint(each) for op, each in core.operators.items()}
                ),
            )
            for name, core in model.cores.items()
        ),
        assumed=tuple(path for path, entry in spread.items() if entry.kind == "assumed"),
    )


def _check_name(path: Path, name: str) -> None:
    if name != path.stem:
        raise ProfileError(
            f"cannot use {_WHAT} {path}: name is {name} (expected {path.stem}, like the file)",
            path=str(path),
            key="name",
        )


def _check_statuses(path: Path, model: CompilerModel) -> None:
    """Check that every reason has words, and no two have the same."""
    from edgesdk.profiles.compiler_schema import STATUS_KINDS

    missing = [kind for kind in STATUS_KINDS if kind not in model.statuses]
    texts = list(model.statuses.values())
    twice = [text for text in texts if texts.count(text) > 1]
    problem = f"lack {missing[0]}" if missing else f"have {twice[0]!r} twice" if twice else ""
    if problem:
        raise ProfileError(
            f"cannot use {_WHAT} {path}: statuses {problem}", path=str(path), key="statuses"
        )


def _figures(model: CompilerModel) -> Iterator[str]:
    """List, by path, what the file states of the compiler."""
    yield from ("compiled_op", "types", "inner_axes", "cache_bytes", "layout", "statuses")
    yield from ("versions", "sized_by")
    for op in model.versions:
        yield f"versions.{op}"
    for op, limits in model.operators.items():
        yield f"operators.{op}"
        for key in sorted(limits.model_fields_set):
            yield f"operators.{op}.{key}"


def _constraint_figures(model: ConstraintsModel) -> Iterator[str]:
    """List, by path, what the file states of the compiler."""
    yield "compiled_op"
    for name, core in model.cores.items():
        yield from (f"cores.{name}.{key}" for key in _CORE_KEYS)
        for op, constraint in core.operators.items():
            yield f"cores.{name}.operators.{op}"
            for key in sorted(constraint.model_fields_set):
                yield f"cores.{name}.operators.{op}.{key}"


def _zeros(stated: dict[Dtype, list[int]]) -> MappingProxyType[str, tuple[int, int]]:
    return MappingProxyType({str(key): (low, high) for key, (low, high) in stated.items()})


def _constraint(model: ConstraintModel) -> OperatorConstraints:
    values: dict[str, Any] = {}
    for each in fields(OperatorConstraints):
        value = getattr(model, each.name)
        if isinstance(value, dict):
            value = MappingProxyType(dict(value))
        values[each.name] = tuple(value) if isinstance(value, list) else value
    return OperatorConstraints(**values)


def _limits(model: LimitsModel) -> OperatorLimits:
    values: dict[str, Any] = {}
    for each in fields(OperatorLimits):
        value = getattr(model, each.name)
        values[each.name] = tuple(value) if isinstance(value, list) else value
    values["options"] = MappingProxyType({k: tuple(v) for k, v in model.options.items()})
    return OperatorLimits(**values)
