"""Constraints of a compiler: what a file may say, what is refused, and what a profile keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgesdk.errors import ProfileError
from edgesdk.profiles import find_target
from edgesdk.profiles.compilers import load_compiler_rules
from edgesdk.profiles.constraint_values import ConstraintRules
from edgesdk.profiles.values import profile_content


def content(**changes: Any) -> dict[str, Any]:
    told = {
        "schema": 1,
        "form": "constraints",
        "name": "acme",
        "version": "1.2",
        "program": "acmecc",
        "how_to_get": "buy it",
        "compiled_op": "acme-op",
        "cores": {
            "small": {
                "accelerators": ["acme-1", "acme-2"],
                "types": ["int8"],
                "zero_points": {"uint8": [0, 255]},
                "operators": {
                    "ADD": {},
                    "MEAN": {"most_reduced": {"int8": 99}, "checks": ["batch-of-one"]},
                },
            }
        },
        "provenance": [
            {
                "fields": ["compiled_op", "cores"],
                "kind": "measured",
                "source": "tried",
                "checked": "2026-12-01",
            },
            {
                "fields": ["cores.small.operators.MEAN.most_reduced"],
                "kind": "assumed",
                "source": "guessed",
                "checked": "2026-12-01",
            },
        ],
    }
    return {key: value for key, value in {**told, **changes}.items() if value is not None}


def load(folder: Path, told: dict[str, Any]) -> ConstraintRules:
    (folder / "acme.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    found = load_compiler_rules("acme", folder=folder)
    assert isinstance(found, ConstraintRules)
    return found


def test_a_file_says_what_each_accelerator_takes(tmp_path: Path) -> None:
    rules = load(tmp_path, content())
    core = rules.core_of("acme-2")
    assert core is not None
    assert core.name == "small"
    assert core.zero_points["uint8"] == (0, 255)
    assert core.operators["MEAN"].most_reduced["int8"] == 99
    assert core.operators["MEAN"].checks == ("batch-of-one",)
    assert core.operators["ADD"].needs_grids
    assert rules.core_of("acme-3") is None
    assert rules.assumed == ("cores.small.operators.MEAN.most_reduced",)


def test_a_changed_file_has_another_digest(tmp_path: Path) -> None:
    before = load(tmp_path, content()).digest
    after = load(tmp_path, content(how_to_get="ask for it, nicely")).digest
    assert before != after


def _cores(**changes: Any) -> dict[str, Any]:
    small = content()["cores"]["small"]
    return {"small": {**small, **changes}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"form": "guesses"}, "form is 'guesses'"),
        ({"cores": {}}, "cores is {}"),
        ({"cores": _cores(accelerators=[])}, "cores.small.accelerators is []"),
        ({"cores": _cores(types=["int7"])}, "'int7'"),
        ({"cores": _cores(zero_points={"uint8": [0]})}, "zero_points.uint8"),
        ({"cores": _cores(operators={"ADD": {"most_strides": 3}})}, "most_strides is not a"),
        ({"cores": _cores(operators={"ADD": {"checks": ["magic"]}})}, "checks[0] is 'magic'"),
        ({"cores": _cores(operators={"add": {}})}, "cores.small.operators.add"),
        ({"name": "other"}, "name is other"),
        ({"module": "os; rm"}, "module is 'os; rm'"),
        ({"program": "../cc"}, "program is '../cc'"),
        ({"provenance": []}, "compiled_op"),
        (
            {"cores": {**_cores(), "large": content()["cores"]["small"]}},
            "cores have acme-1 twice",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load(tmp_path, content(**changes))
    assert told in str(caught.value)
    assert "acme.yaml" in str(caught.value)


def test_a_profile_keeps_the_digest_of_its_constraints() -> None:
    board = profile_content(find_target("ethos-u65-256"))
    compiler = board["backends"][0]["compiler"]
    assert set(compiler) == {"name", "version", "digest"}
