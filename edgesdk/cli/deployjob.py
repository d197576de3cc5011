"""What one deployment is about, decided and built before the device is reached."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgesdk.cli.contest import (
    Competitor,
    build_competitors,
    choice_notes,
    plan_competition,
    plan_verdict,
)
from edgesdk.cli.modelinput import BuildInputs, lint_data, prepare_build, state_folder
from edgesdk.cli.placement import idle_notes
from edgesdk.cli.progress import progress_bars
from edgesdk.cli.runfolder import BASELINE, BUNDLE, CONTEST, prepare_run_folder, run_folder
from edgesdk.cli.source import SourceChoices
from edgesdk.cli.targets import profile_folder
from edgesdk.errors import InputError
from edgesdk.progress import OnNote, ignore_note
from edgesdk.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgesdk.bundle.store import Bundle
    from edgesdk.data.dataset import Dataset
    from edgesdk.data.preprocess import Preprocess
    from edgesdk.data.values import DataFinding
    from edgesdk.model.open import OpenedModel
    from edgesdk.profiles.values import TargetProfile
    from edgesdk.tensors import TensorInfo

__all__ = [
    "Job",
    "Wanted",
    "bundle_dataset",
    "bundle_inputs",
    "prepare_job",
    "preprocess_of",
    "profile_of",
]

_FLOAT: Final = "fp32"
_AUTO: Final = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user asked for. ``device_target`` is what the inventory says the device is."""

    model: Path
    target: str | None = None
    device_target: str | None = None
    calib: str | None = None
    data: str | None = None
    recipe: Path | None = None
    precision: str | None = None
    max_drop: str | None = None
    source: SourceChoices = field(default_factory=SourceChoices)
    baseline: bool = False
    backend: str | None = None
    contest: bool = True
    bench: bool = True
    accept_slower: bool = False
    max_cpu_time: float | None = None
    out_dir: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What will be deployed and judged.

    ``floats`` is the float bundle to deploy first, ``reference`` the model itself for judging
    accuracy, ``profile`` None where a bundle's target is not known here, ``folder`` None where
    nothing is kept on this computer. ``notes`` concern this computer only and are in no bundle.

    Where there are ``competitors``, ``bundle`` is the first of theirs until a contest on the
    device has decided, ``floats`` is not given yet, and ``max_drop`` is what the winner may
    lose on ``data``. With ``accept_slower`` nobody asks whether the bundle is any better than
    ``floats``.
    """

    bundle: Bundle
    floats: Bundle | None
    profile: TargetProfile | None
    reference: OpenedModel | None
    data: Dataset | None
    folder: Path | None
    findings: tuple[DataFinding, ...] = ()
    notes: tuple[str, ...] = ()
    competitors: tuple[Competitor, ...] = ()
    max_drop: float | None = None
    accept_slower: bool = False


def prepare_job(settings: Settings, wanted: Wanted) -> Job:
    """Read or build what is wanted.

    Raises:
        InputError: Something the user gave cannot be used, or options contradict each other.
        BuildError: The build cannot be done.
    """
    from edgesdk.bundle.store import is_bundle_folder

    if is_bundle_folder(wanted.model):
        return _from_bundle(settings, wanted)
    if is_bundle_folder(wanted.model / BUNDLE):  # the folder of an earlier deployment
        return _from_bundle(settings, replace(wanted, model=wanted.model / BUNDLE))
    return _from_model(settings, wanted)


def profile_of(settings: Settings, bundle: Bundle) -> TargetProfile | None:
    """Find the profile of the target a bundle was built for; None if it is not known here."""
    from edgesdk.profiles.catalog import load_catalog

    name = str(bundle.manifest["target"].get("name"))
    return load_catalog(profile_folder(settings)).get(name)


def bundle_inputs(values: object) -> tuple[TensorInfo, ...]:
    """Turn the inputs of a manifest, or what a device says of them, into tensor infos."""
    from edgesdk.tensors import TensorInfo

    return tuple(
        TensorInfo(
            name=str(value["name"]),
            dtype=str(value["dtype"]),
            shape=tuple(
                each if isinstance(each, int | str) else None for each in value["shape"]
            ),
        )
        for value in (values if isinstance(values, list) else [])
        if isinstance(value, dict) and isinstance(value.get("shape"), list)
    )


def bundle_dataset(data: str, manifest: Mapping[str, object]) -> Dataset:
    """Open data for a bundle, with the preprocessing that travels in it.

    Raises:
        DataError: It cannot be read or does not fit.
    """
    from edgesdk.data.dataset import open_dataset

    return open_dataset(
        data, bundle_inputs(manifest["inputs"]), preprocess=preprocess_of(manifest)
    )


def preprocess_of(manifest: Mapping[str, object]) -> Preprocess | None:
    """Read the preprocessing block that travels in a bundle, if one does.

    Raises:
        DataError: The block is not one.
    """
    from edgesdk.data.preprocess import Preprocess

    block = manifest.get("preprocess")
    return Preprocess.from_json(block) if isinstance(block, dict) else None


def _from_bundle(settings: Settings, wanted: Wanted) -> Job:
    from edgesdk.bundle.store import read_bundle
    from edgesdk.profiles.identify import require_agent

    for option, value in (
        ("--calib", wanted.calib),
        ("--recipe", wanted.recipe),
        ("--precision", wanted.precision),
        ("--max-drop", wanted.max_drop),
        *((each, True) for each in wanted.source.given()),
        ("--baseline", wanted.baseline or None),
        ("--backend", wanted.backend),
        ("--accept-slower", wanted.accept_slower or None),
    ):
        if value is not None:
            raise InputError(
                f"cannot use {option} with {wanted.model}: it is a bundle, and bundles are "
                "never changed",
                hint="give the model it was built from",
                option=option,
            )
    bundle = read_bundle(wanted.model)
    profile = profile_of(settings, bundle)
    built_for = str(bundle.manifest["target"].get("name"))
    if wanted.target is not None and wanted.target != built_for:
        raise InputError(
            f"cannot deploy {wanted.model} for {wanted.target}: it was built for {built_for}",
            hint=f"leave --target out, or build the model again for {wanted.target}",
            target=wanted.target,
            built_for=built_for,
        )
    if profile is not None:
        require_agent(profile)
    _check_limit(wanted, profile, built_for)
    dataset = None
    if wanted.data is not None:
        dataset = bundle_dataset(wanted.data, bundle.manifest)
    folder = None
    if wanted.out_dir is not None or wanted.bench or dataset is not None:
        folder = wanted.out_dir or run_folder(settings, model=bundle.name, target=built_for)
        prepare_run_folder(folder)
    return Job(
        bundle=bundle,
        floats=None,
        profile=profile,
        reference=None,
        data=dataset,
        folder=folder,
        findings=lint_data(dataset, preprocess_of(bundle.manifest), manifest=bundle.manifest),
    )


def _from_model(settings: Settings, wanted: Wanted) -> Job:
    from edgesdk.model.tflite import OpenedTflite
    from edgesdk.profiles.identify import require_agent

    inputs = prepare_build(
        settings,
        wanted.model,
        target=wanted.target or wanted.device_target,
        source=wanted.source,
        calib=wanted.calib,
        recipe=wanted.recipe,
        precision=wanted.precision,
        max_drop=wanted.max_drop,
        data=wanted.data,
        backend=wanted.backend,
    )
    require_agent(inputs.profile)
    by_device = inputs.recipe.precision == _AUTO
    if by_device:
        _refuse_beside_auto(wanted)
    if wanted.accept_slower and not wanted.baseline:
        raise InputError(
            "cannot use --accept-slower without --baseline: nothing is compared with the float "
            "model",
            hint="leave --accept-slower out, or add --baseline",
        )
    if wanted.baseline and inputs.plan.precision in (_FLOAT, "as-is"):
        raise InputError(
            f"cannot compare with a float baseline: this build is {inputs.plan.precision}",
            hint="give --calib for an int8 build, or leave --baseline out",
            precision=inputs.plan.precision,
        )
    _check_limit(wanted, inputs.profile, inputs.profile.name)
    dataset = inputs.labelled
    folder = wanted.out_dir or run_folder(
        settings, model=inputs.opened.source.name, target=inputs.profile.name
    )
    prepare_run_folder(folder)
    notes: list[str] = []
    if wanted.backend is None:
        notes += idle_notes(inputs.profile, inputs.plan)

    def build(own: BuildInputs, into: Path) -> tuple[Bundle, Bundle | None]:
        state = state_folder(settings)
        before = None
        if wanted.baseline:
            before = _build(_as_float(own), into / BASELINE, state)
        # times here are of no interest where the device is about to tell
        on_note = ignore_note if by_device else notes.append
        return _build(own, into / BUNDLE, state, on_note), before

    competitors: tuple[Competitor, ...] = ()
    if (wanted.contest and wanted.bench) or by_device:
        contenders = (
            plan_verdict(inputs, backends=wanted.contest)
            if by_device
            else plan_competition(inputs)
        )
        competitors = build_competitors(
            contenders,
            lambda each, plan: build(
                replace(inputs, recipe=each.recipe, plan=plan),
                folder / CONTEST / each.backend / each.precision,
            ),
        )
    floats = None
    built = [c.entrant.bundle for c in competitors if c.entrant.bundle is not None]
    if built:
        bundle = built[0]
    else:
        why = "--no-contest takes" if wanted.bench else "--no-bench takes"
        notes += choice_notes(inputs.profile, inputs.recipe, inputs.plan, why=why)
        bundle, floats = build(inputs, folder)
    opened = inputs.opened
    of_data = lint_data(dataset, inputs.recipe.preprocess, manifest=bundle.manifest)
    return Job(
        bundle=bundle,
        floats=floats,
        profile=inputs.profile,
        reference=None if isinstance(opened, OpenedTflite) else opened,
        data=dataset,
        folder=folder,
        findings=(*inputs.findings, *of_data),
        notes=tuple(dict.fromkeys(notes)),
        competitors=competitors,
        max_drop=inputs.recipe.max_drop,
        accept_slower=wanted.accept_slower,
    )


def _refuse_beside_auto(wanted: Wanted) -> None:
    """Refuse what makes no sense where the device decides the precision."""
    if not wanted.bench:
        raise InputError(
            "cannot use --precision auto with --no-bench: which precision is the fastest is "
            "measured on the device",
            hint="leave --no-bench out, or let this computer choose: edgesdk build "
            "--precision auto, then deploy the bundle",
        )
    if wanted.baseline:
        raise InputError(
            "cannot use --baseline with --precision auto: the float model competes anyway",
            hint="leave --baseline out; the report sets all precisions side by side",
        )


def _check_limit(wanted: Wanted, profile: TargetProfile | None, target: str) -> None:
    from edgesdk.bench.gate import require_accelerator

    if wanted.max_cpu_time is not None:
        require_accelerator(profile, target=target)


def _as_float(inputs: BuildInputs) -> BuildInputs:
    """Give the same build without quantization; its check vectors come from the same data."""
    from edgesdk.plan.planner import model_facts, plan_build

    recipe = replace(inputs.recipe, precision=_FLOAT, max_drop=None, prune=None)
    facts = model_facts(inputs.opened, inputs.profile, recipe)
    plan = plan_build(facts, inputs.profile, recipe)
    return replace(inputs, recipe=recipe, plan=plan)


def _build(
    inputs: BuildInputs, out: Path, state_dir: Path, on_note: OnNote = ignore_note
) -> Bundle:
    from edgesdk.build.pipeline import build_bundle

    with progress_bars() as on_progress:
        return build_bundle(
            inputs.opened,
            inputs.profile,
            inputs.recipe,
            inputs.plan,
            calib=inputs.calib,
            labelled=inputs.labelled,
            out=out,
            state_dir=state_dir,
            on_note=on_note,
            on_progress=on_progress,
        )
