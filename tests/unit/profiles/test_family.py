"""What a family file may say, and what is said to somebody who got it wrong."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgesdk.errors import ProfileError
from edgesdk.profiles.family import load_family
from edgesdk.profiles.rules import load_scheme_rules
from edgesdk.profiles.values import QuantScheme, profile_content

Write = Callable[..., Path]
Refusal = Callable[[dict[str, Any]], ProfileError]
Family = dict[str, Any]


def entry(*fields: str, **changes: str) -> dict[str, Any]:
    values = {"kind": "assumed", "source": "a test", "checked": "2026-01-15", **changes}
    return {"fields": list(fields), **values}


def test_variants_share_what_the_family_says(family: Family, write: Write) -> None:
    path = write(family)
    one, two = load_family(path)
    assert (one.name, two.name) == ("testboard-one", "testboard-two")
    assert one.backends == two.backends
    assert one.source == path
    first = one.backends[0]
    assert first.scheme == QuantScheme(
        activations="int8-asymmetric",
        weights="int8-per-channel-symmetric",
        rules=load_scheme_rules("onnxruntime-cpu"),
    )
    assert (first.runtime_version, first.max_opset, first.max_ir) == ("1.19.2", 21, 10)
    assert dict(first.options) == {"device": "CPU"}
    assert one.backends[1].runtime_version == ""
    assert one.backends[1].scheme is None
    assert one.identify.machine == ("aarch64",)
    assert one.ram_bytes is None


def test_a_variant_changes_only_what_it_lists(family: Family, write: Write) -> None:
    family["variants"][1] |= {
        "ram_bytes": 1 << 30,
        "agent": {"python": "3.7"},
        "identify": {"pci": ["1ac1:089a"]},
        "backends": {"ort-cpu": {"runtime_version": "1.14.1", "max_opset": 18, "max_ir": None}},
        "without_backends": ["litert-cpu"],
        "provenance": [entry("ram_bytes", "agent.python", "identify", "backends")],
    }
    one, two = load_family(write(family))
    assert [b.id for b in one.backends] == ["ort-cpu", "litert-cpu"]
    assert [b.id for b in two.backends] == ["ort-cpu"]
    changed = two.backends[0]
    assert (changed.runtime_version, changed.max_opset, changed.max_ir) == ("1.14.1", 18, None)
    assert changed.requirement == one.backends[0].requirement
    assert (two.agent.python, two.agent.reach) == ("3.7", ("ssh",))
    assert two.identify.machine == ("aarch64",)
    assert two.identify.pci == ("1ac1:089a",)
    assert two.ram_bytes == 1 << 30


def test_a_target_without_an_agent_names_no_python(family: Family, write: Write) -> None:
    family["agent"] = {"reach": []}
    family["provenance"] = [entry("identify", "backends")]
    one, _ = load_family(write(family))
    assert (one.agent.python, one.agent.reach) == ("", ())
    assert "agent.python" not in {each.field for each in one.provenance}
    family["agent"] = {"python": "3.9", "reach": []}
    family["provenance"] = [entry("identify", "backends", "agent")]
    with pytest.raises(ProfileError, match="python is given, but reach names no way"):
        load_family(write(family))
    family["agent"] = {"reach": ["ssh"]}
    family["provenance"] = [entry("identify", "backends")]
    with pytest.raises(ProfileError, match="python is missing"):
        load_family(write(family))


def test_a_profile_cannot_be_changed(family: Family, write: Write) -> None:
    one, _ = load_family(write(family))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        one.backends[0].options["device"] = "GPU"  # type: ignore[index]


def test_the_digest_is_of_what_is_said_not_of_how_or_where(
    family: Family, good_text: str, write: Write
) -> None:
    one, two = load_family(write(family))
    reordered = dict(reversed(family.items()))
    assert load_family(write(reordered, "elsewhere.yaml"))[0].digest == one.digest
    assert load_family(write(good_text, "as-text.yaml"))[0].digest == one.digest
    assert two.digest != one.digest
    family["backends"][0]["max_opset"] = 20
    assert load_family(write(family))[0].digest != one.digest
    assert len(one.digest) == 64


def test_every_figure_has_its_provenance_and_the_longest_path_speaks(
    family: Family, write: Write
) -> None:
    family["provenance"].append(
        entry("backends.ort-cpu.max_opset", kind="measured", source="loaded some models")
    )
    one, _ = load_family(write(family))
    kinds = {p.field: p.kind for p in one.provenance}
    assert kinds == {
        "agent.python": "assumed",
        "identify.machine": "assumed",
        "backends.ort-cpu.precisions": "assumed",
        "backends.ort-cpu.scheme": "assumed",
        "backends.ort-cpu.runtime_version": "assumed",
        "backends.ort-cpu.max_opset": "measured",
        "backends.ort-cpu.max_ir": "assumed",
        "backends.litert-cpu.precisions": "assumed",
    }
    assert "backends.ort-cpu.max_opset" not in one.assumed
    assert "backends.ort-cpu.max_ir" in one.assumed


def test_a_figure_a_variant_changes_needs_a_provenance_of_its_own(
    family: Family, refusal: Refusal
) -> None:
    family["variants"][0]["backends"] = {"ort-cpu": {"max_opset": 17}}
    error = refusal(family)
    assert (
        "variants[0].provenance: does not say where backends.ort-cpu.max_opset comes from"
        in (str(error))
    )
    assert "kind: assumed" in error.hint


def test_a_provenance_for_a_figure_nobody_gives_is_refused(
    family: Family, refusal: Refusal
) -> None:
    family["provenance"].append(entry("backends.ort-cpu.max_opsets"))
    error = refusal(family)
    assert "provenance[1].fields has 'backends.ort-cpu.max_opsets', which is no figure" in str(
        error
    )
    assert "backends.ort-cpu.max_opset" in error.hint


@pytest.mark.parametrize(
    ("place", "value", "complaint", "hint"),
    [
        (("backend",), [], "backend is not a known key (expected one of schema,", "backends"),
        (("schema",), 2, "schema is 2 (expected 1)", ""),
        (("vendor",), 7, "vendor is 7 (expected text; put quotes around it)", ""),
        (("backends",), [], "backends is [] (expected otherwise: list should", ""),
        (("variants",), [], "variants is [] (expected otherwise: list should", ""),
        (
            ("backends", 0, "max_opse"),
            1,
            "backends[0].max_opse is not a known key",
            "max_opset",
        ),
        (("backends", 0, "max_opset"), 3, "backends[0].max_opset is 3 (expected otherwise", ""),
        (("backends", 0, "max_opset"), "21", "backends[0].max_opset is '21' (expected", ""),
        (("backends", 0, "max_opset"), True, "backends[0].max_opset is True (expected", ""),
        (("backends", 0, "max_ir"), 10.0, "backends[0].max_ir is 10.0 (expected", ""),
        (("backends", 0, "runtime_version"), 1.19, "is 1.19 (expected text; put quotes", ""),
        (("backends", 0, "precisions"), ["int9"], "precisions[0] is 'int9' (expected", "int8"),
        (
            ("backends", 0, "scheme", "activations"),
            "int8-asymetric",
            "backends[0].scheme.activations is 'int8-asymetric' (expected 'uint8-asymmetric',",
            "int8-asymmetric",
        ),
        (("backends", 0, "options"), {"device": 1.5}, "options.device is 1.5 (expected", ""),
        (
            ("backends", 0, "id"),
            "ORT CPU",
            "backends[0].id is 'ORT CPU' (expected text like",
            "",
        ),
        (("backends", 0, "requirement"), "a\x1bb", "requirement is 'a\\x1bb' (expected", ""),
        (("agent", "python"), "2.7", "agent.python is '2.7' (expected text like", ""),
        (("agent", "python"), 3.1, "agent.python is 3.1 (expected text; put quotes", ""),
        (
            ("agent", "reach"),
            ["shh"],
            "agent.reach[0] is 'shh' (expected 'local', 'ssh'",
            "ssh",
        ),
        (("identify", "machin"), ["a"], "identify.machin is not a known key", "machine"),
        (("identify", "pci"), ["1AC1-089A"], "identify.pci[0] is '1AC1-089A' (expected", ""),
        (
            ("variants", 0, "ram_byte"),
            1,
            "variants[0].ram_byte is not a known key",
            "ram_bytes",
        ),
        (("variants", 0, "ram_bytes"), 4096, "variants[0].ram_bytes is 4096 (expected", ""),
        (
            ("variants", 0, "backends"),
            {"ort-cpu": {"max_opse": 1}},
            "variants[0].backends.ort-cpu.max_opse is not a known key",
            "max_opset",
        ),
        (("variants", 0, "name"), "../etc", "variants[0].name is '../etc' (expected", ""),
        (("provenance", 0, "kind"), "guessed", "provenance[0].kind is 'guessed' (expected", ""),
        (
            ("provenance", 0, "checked"),
            "15.1.2026",
            "checked is '15.1.2026' (expected text",
            "",
        ),
        (
            ("provenance", 0, "checked"),
            "2026-02-31",
            "checked is '2026-02-31' (expected a day",
            "",
        ),
        (
            ("provenance", 0, "kind"),
            "datasheet",
            "source is 'a test' (expected a link",
            "https",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_file_key_and_what_was_expected(
    family: Family,
    refusal: Refusal,
    place: tuple[str | int, ...],
    value: object,
    complaint: str,
    hint: str,
) -> None:
    inner: Any = family
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    error = refusal(family)
    assert complaint in str(error)
    assert hint in error.hint


@pytest.mark.parametrize("key", ["schema", "family", "vendor", "backends", "agent", "variants"])
def test_a_missing_key_is_named(family: Family, refusal: Refusal, key: str) -> None:
    del family[key]
    assert str(refusal(family)).endswith(f": {key} is missing")


def test_a_backend_twice_is_refused(family: Family, refusal: Refusal) -> None:
    family["backends"].append(copy.deepcopy(family["backends"][0]))
    assert "backends has ort-cpu twice (expected once)" in str(refusal(family))


def test_a_variant_twice_is_refused(family: Family, refusal: Refusal) -> None:
    family["variants"][1]["name"] = "testboard-one"
    assert "variants has testboard-one twice (expected once)" in str(refusal(family))


def test_two_defaults_in_a_family_are_refused(family: Family, refusal: Refusal) -> None:
    for variant in family["variants"]:
        variant["default"] = True
    assert "variants have 2 defaults (expected one at most)" in str(refusal(family))


@pytest.mark.parametrize(
    ("key", "value"), [("backends", {"ort-gpu": {}}), ("without_backends", ["ort-gpu"])]
)
def test_a_variant_can_only_change_backends_of_its_family(
    family: Family, refusal: Refusal, key: str, value: object
) -> None:
    family["variants"][0][key] = value
    error = refusal(family)
    assert f"variants[0].{key}: ort-gpu is no backend of the family (it has ort-cpu," in str(
        error
    )
    assert error.hint == "did you mean ort-cpu?"


def test_a_variant_cannot_change_a_backend_it_drops(family: Family, refusal: Refusal) -> None:
    family["variants"][0] |= {
        "backends": {"ort-cpu": {"requirement": "pip"}},
        "without_backends": ["ort-cpu"],
    }
    assert "drops ort-cpu, which variants[0].backends changes" in str(refusal(family))


def test_a_variant_without_any_backend_is_refused(family: Family, refusal: Refusal) -> None:
    family["variants"][0]["without_backends"] = ["ort-cpu", "litert-cpu"]
    assert "variants[0].without_backends leaves no backend" in str(refusal(family))


def test_a_whole_number_precision_needs_a_scheme(family: Family, refusal: Refusal) -> None:
    del family["backends"][0]["scheme"]
    assert "backends[0].scheme is missing (expected one, as it has int8)" in str(
        refusal(family)
    )


def test_a_scheme_without_a_whole_number_precision_is_refused(
    family: Family, refusal: Refusal
) -> None:
    family["backends"][0]["precisions"] = ["fp32"]
    assert "backends[0].scheme is given, but no precision is a whole number" in (
        str(refusal(family))
    )


def test_a_scheme_names_its_rules(family: Family, refusal: Refusal) -> None:
    del family["backends"][0]["scheme"]["rules"]
    assert str(refusal(family)).endswith(": backends[0].scheme.rules is missing")


def test_unknown_rules_get_near_misses_and_the_list(family: Family, refusal: Refusal) -> None:
    family["backends"][0]["scheme"]["rules"] = "onnxruntime-cp"
    error = refusal(family)
    assert (
        "backends[0].scheme.rules is 'onnxruntime-cp', and no file has that name "
        "(expected one of edgetpu, litert-int8, onnxruntime-cpu, openvino, tensorrt)"
    ) in str(error)
    assert error.hint == "did you mean onnxruntime-cpu?"


def test_unknown_rules_of_a_variant_are_named_there(family: Family, refusal: Refusal) -> None:
    scheme = {**family["backends"][0]["scheme"], "rules": "other"}
    family["variants"][1]["backends"] = {"ort-cpu": {"scheme": scheme}}
    assert "variants[1].backends.ort-cpu.scheme.rules is 'other', and" in str(refusal(family))


def test_rules_beside_the_family_go_before_shipped_ones(
    family: Family, rules: dict[str, Any], write: Write
) -> None:
    shipped, _ = load_family(write(family))
    write({**rules, "name": "onnxruntime-cpu"}, "schemes/onnxruntime-cpu.yaml")
    write(rules, "schemes/acme.yaml")
    own, _ = load_family(write(family))
    assert own.backends[0].scheme is not None
    assert own.backends[0].scheme.rules.compute == ("Conv", "Gemm")
    assert own.digest != shipped.digest
    assert own.assumed[-1] == "backends.ort-cpu.scheme.rules.bias"
    family["backends"][0]["scheme"]["rules"] = "acme"
    named, _ = load_family(write(family))
    assert named.backends[0].scheme is not None
    assert named.backends[0].scheme.rules.name == "acme"


def test_rules_are_part_of_what_a_profile_says(
    family: Family, rules: dict[str, Any], write: Write
) -> None:
    family["backends"][0]["scheme"]["rules"] = "acme"
    write(rules, "schemes/acme.yaml")
    before, _ = load_family(write(family))
    rules["narrow_weights"] = False
    write(rules, "schemes/acme.yaml")
    after, _ = load_family(write(family))
    assert after.digest != before.digest
    content = profile_content(after)["backends"][0]["scheme"]["rules"]
    assert content["fused_after"] == {"Conv": ["Relu", "Clip"]}
    assert content["fixed_outputs"] == {"Sigmoid": [0.0, 1.0]}
    assert content["narrow_weights"] is False


def test_broken_rules_are_named_and_not_the_family(
    family: Family, rules: dict[str, Any], write: Write
) -> None:
    family["backends"][0]["scheme"]["rules"] = "acme"
    path = write({**rules, "computes": []}, "schemes/acme.yaml")
    with pytest.raises(ProfileError) as caught:
        load_family(write(family))
    assert str(caught.value).startswith(
        f"cannot use scheme rules {path}: computes is not a known key (expected one of schema,"
    )
    assert caught.value.hint == "did you mean compute?"


@pytest.mark.parametrize("name", ["int8-dynamic", "int4-weights", "fp16"])
def test_no_other_precision_needs_a_scheme(family: Family, write: Write, name: str) -> None:
    family["backends"][1]["precisions"] = [name]
    assert load_family(write(family))[0].backends[1].precisions == (name,)


def test_a_ceiling_needs_the_release_that_has_it(family: Family, refusal: Refusal) -> None:
    del family["backends"][0]["runtime_version"]
    assert "backends[0].max_opset is given without runtime_version" in str(refusal(family))


def test_a_contradiction_made_by_a_variant_is_found(family: Family, refusal: Refusal) -> None:
    family["variants"][1]["backends"] = {"ort-cpu": {"precisions": ["fp32"]}}
    assert "variants[1].backends.ort-cpu.scheme is given, but" in str(refusal(family))


def test_a_precision_twice_is_refused(family: Family, refusal: Refusal) -> None:
    family["backends"][0]["precisions"] = ["int8", "int8"]
    assert "backends[0].precisions has int8 twice (expected once)" in str(refusal(family))


def test_the_same_provenance_twice_is_refused(family: Family, refusal: Refusal) -> None:
    family["provenance"].append(entry("agent"))
    assert "provenance[1].fields has agent a second time" in str(refusal(family))


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_any_bytes_are_read_or_refused_as_a_profile_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(data)
    try:
        load_family(path)
    except ProfileError as error:
        assert str(error).startswith("cannot ")  # noqa: PT017 -- either outcome is right


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    place=st.integers(0, 10_000),
    insert=st.sampled_from([*"\t:-[]{}#&*!|>'\"%@`,?~\n\x00\x7f0", "- ", ": ", "<<: "]),
    drop=st.integers(0, 12),
)
def test_a_damaged_profile_is_read_or_refused_as_a_profile_error(
    tmp_path: Path, good_text: str, place: int, insert: str, drop: int
) -> None:
    place %= len(good_text)
    path = tmp_path / "damaged.yaml"
    path.write_text(good_text[:place] + insert + good_text[place + drop :], encoding="utf-8")
    try:
        load_family(path)
    except ProfileError as error:
        assert str(path) in str(error)  # noqa: PT017 -- either outcome is right


def with_contest(family: Family, *contest: str) -> Family:
    """Give the family a contest, and say where it comes from."""
    family["contest"] = list(contest)
    family["provenance"].append(entry("contest"))
    return family


def test_a_contest_is_the_familys_unless_a_variant_has_its_own(
    family: Family, write: Write
) -> None:
    with_contest(family, "ort-cpu", "litert-cpu")
    family["variants"][1] |= {"contest": [], "without_backends": ["litert-cpu"]}
    one, two = load_family(write(family))
    assert one.contest == ("ort-cpu", "litert-cpu")
    assert two.contest == ()
    assert "contest" in {each.field for each in one.provenance}
    assert "contest" not in {each.field for each in two.provenance}
    del family["contest"], family["provenance"][-1]
    family["variants"][1] = {
        "name": "two",
        "title": "Two",
        "contest": ["ort-cpu", "litert-cpu"],
    }
    family["variants"][1]["provenance"] = [entry("contest", kind="measured")]
    one, two = load_family(write(family))
    assert (one.contest, two.contest) == ((), ("ort-cpu", "litert-cpu"))
    assert one.digest != two.digest


@pytest.mark.parametrize(
    ("contest", "said", "hint"),
    [
        (
            ["ort-cpu", "litrt-cpu"],
            "contest: litrt-cpu is no backend",
            "did you mean litert-cpu",
        ),
        (
            ["ort-cpu", "gpu"],
            "contest: gpu is no backend here (there are ort-cpu, lit",
            "[] is",
        ),
        (["ort-cpu", "ort-cpu"], "contest has ort-cpu twice", ""),
        (["litert-cpu"], "contest has litert-cpu alone (expected two or more, or none)", ""),
        (
            ["litert-cpu", "ort-cpu"],
            "contest has the order litert-cpu, ort-cpu (expected that of backends",
            "",
        ),
    ],
)
def test_a_contest_is_between_backends_in_their_order(
    family: Family, refusal: Refusal, contest: list[str], said: str, hint: str
) -> None:
    error = refusal(with_contest(family, *contest))
    assert said in str(error)
    assert hint in error.hint


def test_a_variant_without_a_backend_of_the_contest_has_to_say_what_becomes_of_it(
    family: Family, refusal: Refusal
) -> None:
    with_contest(family, "ort-cpu", "litert-cpu")
    family["variants"][1]["without_backends"] = ["ort-cpu"]
    error = refusal(family)
    assert "variants[1].contest: ort-cpu is no backend here (there are litert-cpu)" in str(
        error
    )


def test_a_contest_that_is_no_list_of_names_is_refused(
    family: Family, refusal: Refusal
) -> None:
    family["contest"] = "ort-cpu"
    assert "contest is 'ort-cpu' (expected otherwise:" in str(refusal(family))
    family["contest"] = [["ort-cpu"]]
    assert "contest[0] is ['ort-cpu'] (expected text" in str(refusal(family))


def test_a_contest_needs_its_provenance(family: Family, refusal: Refusal) -> None:
    family["contest"] = ["ort-cpu", "litert-cpu"]
    assert "does not say where contest comes from" in str(refusal(family))
