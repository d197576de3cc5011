"""The JSON Schema for editors agrees with what is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgesdk import profiles
from edgesdk._resources import resource_dir
from edgesdk.errors import ProfileError
from edgesdk.yaml_file import read_yaml

SCHEMAS = [profiles.profile_schema, profiles.rules_schema]


@pytest.mark.parametrize("make", SCHEMAS)
def test_the_schema_is_a_valid_schema_and_json(make: Callable[[], dict[str, Any]]) -> None:
    schema = make()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize("path", sorted(resource_dir("targets").glob("*.yaml")), ids=str)
def test_every_shipped_file_fits_the_schema(path: Path) -> None:
    content = read_yaml(path, what="target profile", error=ProfileError)
    jsonschema.validate(content, profiles.profile_schema())


@pytest.mark.parametrize(
    "path", sorted(resource_dir("targets").glob("schemes/*.yaml")), ids=str
)
def test_every_shipped_file_of_rules_fits_its_schema(path: Path) -> None:
    content = read_yaml(path, what="scheme rules", error=ProfileError)
    jsonschema.validate(content, profiles.rules_schema())
    with pytest.raises(jsonschema.ValidationError, match="computes"):
        jsonschema.validate({**content, "computes": []}, profiles.rules_schema())


def test_the_schema_refuses_an_unknown_key_too(family: dict[str, Any]) -> None:
    jsonschema.validate(family, profiles.profile_schema())
    family["variants"][0]["ram_byte"] = 1
    with pytest.raises(jsonschema.ValidationError, match="ram_byte"):
        jsonschema.validate(family, profiles.profile_schema())


def test_an_attribute_nobody_knows_is_an_attribute_error() -> None:
    get: Callable[[str], object] = profiles.__getattr__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        get("nothing")
