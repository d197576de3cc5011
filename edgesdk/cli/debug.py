"""``edgesdk debug``: which layers lose how much in 8 bits, here and on a device."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesdk.cli.debugjob import (
    LayerTable,
    measure_layers,
    measure_layers_on_device,
    names_to_keep,
    price_rows,
)
from edgesdk.cli.deltas import find_bases
from edgesdk.cli.devicelink import find_device, note_wait, open_session
from edgesdk.cli.modelinput import note_findings, prepare_build, state_folder
from edgesdk.cli.options import (
    BackendOption,
    CalibOption,
    DataOption,
    FormatOption,
    InventoryOption,
    MaxDropOption,
    ModelArgument,
    PrecisionOption,
    RecipeOption,
    ShapeOption,
    TargetOption,
    TargetsDirOption,
)
from edgesdk.cli.output import Format, Output, jsonable
from edgesdk.cli.progress import progress_bars
from edgesdk.cli.source import DynamicOption, OpsetOption, SourceChoices, TrustOption
from edgesdk.errors import InputError, OutputError
from edgesdk.settings import resolve_settings

if TYPE_CHECKING:
    from edgesdk.build.debug import LayerBuild
    from edgesdk.cli.modelinput import BuildInputs
    from edgesdk.devices.inventory import Device
    from edgesdk.quantize.branches import Layer
    from edgesdk.quantize.layers import Distance
    from edgesdk.settings import Settings

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_SORTS = ("local", "accumulated")


@app.command()
def debug(
    *,
    model: ModelArgument,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            "-d",
            metavar="DEVICE",
            help="Look at the layers there too: a name from the inventory or a URL.",
        ),
    ] = None,
    target: TargetOption = None,
    calib: CalibOption = None,
    data: DataOption = None,
    recipe: RecipeOption = None,
    precision: PrecisionOption = None,
    max_drop: MaxDropOption = None,
    backend: BackendOption = None,
    shape: ShapeOption = None,
    opset: OpsetOption = None,
    dynamic: DynamicOption = None,
    trust: TrustOption = False,
    samples: Annotated[
        int,
        typer.Option(
            "--samples", min=1, max=1000, help="How many samples of the data to compare on."
        ),
    ] = 8,
    top: Annotated[
        int, typer.Option("--top", min=0, metavar="N", help="Show so many layers; 0 for all.")
    ] = 20,
    sort: Annotated[
        str, typer.Option("--sort", metavar="BY", help="Worst by local or accumulated error.")
    ] = "local",
    out_file: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Save all as .csv or .json."),
    ] = None,
    force_target: Annotated[
        bool,
        typer.Option("--force-target", help="Go on if the device is not the target."),
    ] = False,
    inventory: InventoryOption = None,
    targets_dir: TargetsDirOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Say which layers lose how much in 8 bits.

    Of every layer the error that has accumulated up to it, and its own, local one, with float
    inputs: as signal over noise in dB against the float model. With --device in the runtime
    there too; what serves there goes on serving. Samples are those of --data, else of --calib.
    Last comes the cheapest set to keep in float for --max-drop, as lines of a recipe.
    """
    from edgesdk.profiles.identify import require_agent

    out = Output("debug", fmt)
    settings = resolve_settings({"inventory": inventory, "targets_dir": targets_dir})
    if sort not in _SORTS:
        raise InputError(
            f"cannot sort by {sort!r}: layers have a local and an accumulated error",
            hint="give --sort local or --sort accumulated",
        )
    _check_output(out_file)
    found = None if device is None else find_device(settings, device)
    inputs = prepare_build(
        settings,
        model,
        target=target or (found.target if found is not None else None),
        source=SourceChoices(shapes=shape, opset=opset, dynamic=dynamic, trust=trust),
        calib=calib,
        recipe=recipe,
        precision=precision,
        max_drop=max_drop,
        data=data,
        backend=backend,
    )
    if found is not None:
        require_agent(inputs.profile)
    note_findings(out, inputs.findings)
    made = _build(settings, inputs)
    for finding in made.as_built["findings"]:
        out.note(f"{finding['severity']}: {finding['message']}")
    shown = inputs.labelled if inputs.labelled is not None else inputs.calib
    assert shown is not None, "a build without calibration data is refused"
    with progress_bars() as on_progress:
        table = measure_layers(made, shown, samples, on_progress)
    if found is not None:
        _look_there(table, made, settings, found, inputs, samples, force_target=force_target)
    names = [node.name or "" for node in made.opened.ir.graph.all_nodes()]
    budget = made.as_built.get("budget")
    ordered = table.worst_first(sort)
    content = {
        "model": made.opened.source.name,
        "target": made.profile.name,
        "precision": made.plan.precision,
        "device": None if found is None else found.name,
        "device_runtimes": table.runtimes,
        "device_failed": None if table.broken is None else str(table.broken),
        "samples": samples if shown.count is None else min(samples, shown.count),
        "sorted_by": sort,
        "layers": [table.record(layer) for layer in ordered],
        "too_large_for_device": table.too_large,
        "budget": budget,
        "keep_float": names_to_keep(budget, names),
    }
    out.document(content)
    if out_file is not None:
        _save(out_file, content)
        out.note(f"wrote {out_file}")
    _show(out, table, ordered if not top else ordered[:top], content)
    ran = ("device ran", ", ".join(table.runtimes) or None)
    out.pairs([ran, *price_rows(budget, names)])
    if table.broken is not None:
        raise table.broken


def _build(settings: Settings, inputs: BuildInputs) -> LayerBuild:
    from edgesdk.build.debug import build_layers
    from edgesdk.plan.precisions import NOISE_LIMIT, ONE_POINT

    judged = inputs.labelled if inputs.labelled is not None else inputs.calib
    recipe = inputs.recipe
    if recipe.max_drop is None:
        is_labelled = judged is not None and judged.labels is not None
        limit = ONE_POINT if is_labelled else NOISE_LIMIT
        recipe = replace(recipe, max_drop=limit)
    with progress_bars() as on_progress:
        return build_layers(
            inputs.opened,
            inputs.profile,
            recipe,
            inputs.plan,
            calib=inputs.calib,
            labelled=inputs.labelled,
            state_dir=state_folder(settings),
            on_progress=on_progress,
        )


def _look_there(  # noqa: PLR0917 - private, and each is of another type
    table: LayerTable,
    made: LayerBuild,
    settings: Settings,
    device: Device,
    inputs: BuildInputs,
    count: int,
    *,
    force_target: bool,
) -> None:
    from edgesdk.deploy.hold import hold_device
    from edgesdk.errors import BuildError, DeviceError, LinkError

    shown = inputs.labelled if inputs.labelled is not None else inputs.calib
    assert shown is not None
    try:
        with (
            open_session(settings, device) as session,
            hold_device(session, doing="debug", on_wait=note_wait),
            progress_bars() as on_progress,
        ):
            measure_layers_on_device(
                table,
                made,
                session,
                shown,
                count,
                on_progress,
                force_target=force_target,
                timeout_s=settings.request_timeout_s,
                bases=find_bases(settings),
            )
    except (BuildError, DeviceError, LinkError) as exc:
        table.broken = table.broken or exc


def _show(
    out: Output, table: LayerTable, layers: Sequence[Layer], content: dict[str, Any]
) -> None:
    there = content["device"]
    out.line(
        f"{content['model']} {content['precision']} for {content['target']}: signal over noise "
        f"against float in dB on {content['samples']} samples, worst {content['sorted_by']} "
        "error first\n"
    )
    columns = ["layer", "op", "accumulated, host", "local, host"]
    places = ["host"]
    if there is not None:
        columns += ["accumulated, device", "local, device"]
        places.append("device")
    out.table(
        columns,
        [
            (
                layer.name,
                layer.op,
                *(
                    _cell(kind.get(place, {}).get(layer.name))
                    for place in places
                    for kind in (table.accumulated, table.local)
                ),
            )
            for layer in layers
        ],
        right=columns[2:],
    )
    left = len(table.layers) - len(layers)
    if left:
        out.line(f"{left} more; --top 0 shows all, -o saves them")
    if there is not None and table.too_large:
        count = len(table.too_large)
        out.line(f"the results of {count} layers are too large for a reply of the device")
    out.line()


def _cell(found: Distance | None) -> str:
    if found is None:
        return "-"
    return found.state or f"{found.sqnr_db:.1f}"


def _check_output(path: Path | None) -> None:
    if path is not None and path.suffix not in (".csv", ".json"):
        raise InputError(
            f"cannot save layers as {path.name}: it ends in neither .csv nor .json",
            hint="give -o layers.csv or -o layers.json",
        )


def _save(path: Path, content: dict[str, Any]) -> None:
    if path.suffix == ".json":
        document = {"schema": "edgesdk.debug/1", **content}
        text = json.dumps(jsonable(document), indent=2, allow_nan=False) + "\n"
    else:
        text = _as_csv(content["layers"])
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as exc:
        raise OutputError(
            f"cannot write {path}: {exc.strerror or exc}",
            hint="is there room, and may you write there?",
            path=str(path),
        ) from exc


def _as_csv(layers: Sequence[dict[str, Any]]) -> str:
    kinds = [f"{w}_{k}" for w in ("host", "device") for k in _SORTS[::-1]]
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    columns = [f"{kind}_{what}" for kind in kinds for what in ("sqnr_db", "cosine", "state")]
    rows.writerow(["layer", "op", *columns])
    for one in layers:
        cells: list[object] = []
        for kind in kinds:
            found: Distance | None = one[kind]
            if found is None:
                cells += ["", "", "not measured"]
            else:
                cells += [found.sqnr_db, found.cosine, found.state]
        rows.writerow([one["name"], one["op"], *cells])
    return stream.getvalue()
