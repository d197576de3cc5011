"""Device limits: what a file may say, what is refused, and how a family names one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgesdk._resources import resource_dir
from edgesdk.errors import ProfileError
from edgesdk.profiles.family import load_family
from edgesdk.profiles.limits import limits_files, load_limits


def content(**changes: Any) -> dict[str, Any]:
    told = {
        "schema": 1,
        "name": "acme",
        "fixed_shapes": True,
        "most_rank": 5,
        "types": ["float32", "int8"],
        "refused": {"Loop": "it cannot jump", "If": "it cannot choose"},
        "provenance": [
            {
                "fields": ["fixed_shapes", "most_rank", "types", "refused.If"],
                "kind": "datasheet",
                "source": "https://example.com/acme.pdf",
                "checked": "2026-12-01",
            },
            {
                "fields": ["refused.Loop"],
                "kind": "assumed",
                "source": "not tried",
                "checked": "2026-12-01",
            },
        ],
    }
    return {key: value for key, value in {**told, **changes}.items() if value is not None}


def write(folder: Path, told: dict[str, Any]) -> Path:
    path = folder / "acme.yaml"
    path.write_text(yaml.safe_dump(told), encoding="utf-8")
    return path


def test_a_file_says_what_a_device_takes_and_what_of_it_nobody_knows(tmp_path: Path) -> None:
    write(tmp_path, content())
    limits = load_limits("acme", folder=tmp_path)
    assert (limits.fixed_shapes, limits.most_rank) == (True, 5)
    assert limits.types == ("float32", "int8")
    assert dict(limits.refused) == {"Loop": "it cannot jump", "If": "it cannot choose"}
    assert limits.assumed == ("refused.Loop",)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fixed_shapes": None}, "fixed_shapes"),
        ({"most_rank": 0}, "most_rank"),
        ({"types": []}, "types"),
        ({"types": ["float33x"]}, "types"),
        ({"refused": {"not an op": "x"}}, "refused"),
        ({"max_rank": 5}, "max_rank"),
        ({"name": "other"}, "name is other"),
        ({"provenance": []}, "does not say where fixed_shapes comes from"),
        ({"schema": 2}, "schema"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_key(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    path = write(tmp_path, content(**changes))
    with pytest.raises(ProfileError) as caught:
        load_limits("acme", folder=tmp_path)
    assert str(caught.value).startswith(f"cannot use device limits {path}: ")
    assert told in str(caught.value)


def test_a_name_that_is_none_is_refused_with_what_is_near() -> None:
    with pytest.raises(ProfileError) as caught:
        load_limits("openvino-nppu")
    assert caught.value.hint.startswith("did you mean openvino-npu")
    assert set(limits_files()) >= {"openvino-npu", "openvino-gpu"}


def test_a_family_names_its_limits_and_its_digest_covers_them(tmp_path: Path) -> None:
    source = resource_dir("targets") / "intel-npu.yaml"
    family = yaml.safe_load(source.read_text(encoding="utf-8"))
    (shipped, *_) = load_family(source)
    assert shipped.backends[0].limits is not None
    family["backends"][0]["limits"] = "acme"
    (tmp_path / "limits").mkdir()
    (tmp_path / "limits" / "acme.yaml").write_text(yaml.safe_dump(content()), encoding="utf-8")
    path = tmp_path / "family.yaml"
    path.write_text(yaml.safe_dump(family), encoding="utf-8")
    (changed, *_) = load_family(path)
    assert changed.backends[0].limits == load_limits("acme", folder=tmp_path / "limits")
    assert changed.digest != shipped.digest
    family["backends"][0]["limits"] = "acmf"
    path.write_text(yaml.safe_dump(family), encoding="utf-8")
    with pytest.raises(ProfileError, match="backends") as caught:
        load_family(path)
    assert "limits is 'acmf', and no file has that name" in str(caught.value)
    assert caught.value.hint == "did you mean acme?"
