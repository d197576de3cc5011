"""Scheme rules: what a runtime's 8-bit kernels want, from the files under ``targets/schemes``.

Many backends of many families name the same file, so one that was read is remembered for as
long as it does not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgesdk.errors import ProfileError
from edgesdk.profiles.named_files import find_named, named_files
from edgesdk.profiles.provenance import spread_provenance
from edgesdk.profiles.values import Provenance, SchemeRules
from edgesdk.yaml_file import read_yaml

if TYPE_CHECKING:
    from edgesdk.profiles.schema import RulesModel

__all__ = ["RULES_FOLDER", "load_scheme_rules", "rules_files"]

#: Where the files lie, in the folder of the family files that name them.
RULES_FOLDER = "schemes"
_WHAT = "scheme rules"
_LISTS = ("compute", "elementwise", "same_scale", "per_tensor_weights", "float_results")
_MAPPINGS = ("fused_after", "fixed_outputs", "kept_float")
#: An operator is in one of these only: each says something else about the scale of its result.
_EXCLUSIVE = ("compute", "elementwise", "same_scale", "kept_float")
#: What a key says is about operators of these lists, and means nothing for others.
_ABOUT = {
    "fused_after": ("compute", "elementwise", "same_scale"),
    "fixed_outputs": ("elementwise",),
    "per_tensor_weights": ("compute",),
    "float_results": ("compute",),
}


def rules_files(folder: Path | None = None) -> dict[str, Path]:
    """List the files there are, by name; see `named_files`."""
    return named_files(RULES_FOLDER, folder)


def load_scheme_rules(name: str, *, folder: Path | None = None) -> SchemeRules:
    """Read and check the rules called ``name``.

    Args:
        name: The file's name, without its suffix.
        folder: A folder with rules of the user's own, which go before the shipped ones.

    Raises:
        ProfileError: There are none of that name, or something in the file is unknown, out of
            range or contradicts something else; the text names file and key.
    """
    return _load(*find_named(name, rules_files(folder), what=_WHAT))


@lru_cache(maxsize=64)
def _load(path: Path, _state: tuple[int, ...]) -> SchemeRules:  # a changed file is read again
    """Read the rules of a file."""
    from edgesdk.profiles.schema import parse_rules

    content = read_yaml(
        path, what=_WHAT, error=ProfileError, expected="a mapping with schema, name, ..."
    )
    model = parse_rules(path, content)
    if model.name != path.stem:
        raise _wrong(path, "name", f"is {model.name} (expected {path.stem}, like the file)")
    _check(path, model)
    spread_provenance(path, "provenance", model.provenance, tuple(_figures(model)), what=_WHAT)
    return SchemeRules(
        name=model.name,
        placement=model.placement,
        compute=tuple(model.compute),
        elementwise=tuple(model.elementwise),
        same_scale=tuple(model.same_scale),
        fused_after=MappingProxyType({k: tuple(v) for k, v in model.fused_after.items()}),
        fixed_outputs=MappingProxyType(
            {op: (low, high) for op, (low, high) in model.fixed_outputs.items()}
        ),
        per_tensor_weights=tuple(model.per_tensor_weights),
        float_results=tuple(model.float_results),
        kept_float=MappingProxyType(dict(model.kept_float)),
        narrow_weights=model.narrow_weights,
        bias=model.bias,
        provenance=tuple(
            Provenance(field=field, kind=each.kind, source=each.source, checked=each.checked)
            for each in model.provenance
            for field in each.fields
        ),
    )


def _wrong(path: Path, key: str, problem: str) -> ProfileError:
    return ProfileError(f"cannot use {_WHAT} {path}: {key} {problem}", path=str(path), key=key)


def _figures(model: RulesModel) -> Iterator[str]:
    """List, by path, what the file states: operators of each list, and the single values."""
    yield "placement"
    for key in _LISTS + _MAPPINGS:
        for operator in getattr(model, key):
            yield f"{key}.{operator}"
    yield "narrow_weights"
    yield "bias"


def _check_once(path: Path, key: str, operators: Sequence[str]) -> None:
    for operator in operators:
        if operators.count(operator) > 1:
            raise _wrong(path, key, f"has {operator} twice (expected once)")


def _check(path: Path, model: RulesModel) -> None:
    """Check what the keys say to each other."""
    for key in _LISTS:
        _check_once(path, key, getattr(model, key))
    for operator, absorbed in model.fused_after.items():
        _check_once(path, f"fused_after.{operator}", absorbed)
    for operator, (low, high) in model.fixed_outputs.items():
        key = f"fixed_outputs.{operator}"
        if low >= high:
            raise _wrong(path, key, f"is [{low:g}, {high:g}] (expected the lower end first)")
        if operator in model.same_scale:
            raise _wrong(path, key, "is given, but same_scale has the operator too")
    _check_lists(path, model)


def _check_lists(path: Path, model: RulesModel) -> None:
    """Check that an operator is in the lists it needs, and in no two that disagree."""
    for index, key in enumerate(_EXCLUSIVE):
        for other in _EXCLUSIVE[:index]:
            for operator in getattr(model, key):
                if operator in getattr(model, other):
                    problem = f"has {operator}, which {other} has too (expected in one of them)"
                    raise _wrong(path, key, problem)
    for key, lists in _ABOUT.items():
        for operator in getattr(model, key):
            if not any(operator in getattr(model, name) for name in lists):
                problem = f"has {operator} (expected an operator of {' or '.join(lists)})"
                raise _wrong(path, key, problem)
