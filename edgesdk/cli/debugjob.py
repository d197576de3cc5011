"""What `edgesdk debug` measures: every layer, here and on a device, and the price."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.cli.output import size_text
from edgesdk.errors import DeviceError, EdgeError, LinkError

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.build.debug import LayerBuild
    from edgesdk.data.dataset import Dataset
    from edgesdk.deploy.activate import Proven
    from edgesdk.deploy.delta_bases import Bases
    from edgesdk.devices.session import Session
    from edgesdk.progress import OnProgress
    from edgesdk.quantize.branches import Layer, Tapped
    from edgesdk.quantize.layers import Distance

__all__ = [
    "LayerTable",
    "measure_layers",
    "measure_layers_on_device",
    "names_to_keep",
    "price_rows",
]

#: What one reply of a device may hold is more than this: `edgesdk.wire.limits`.
_DEVICE_BYTES = 32 << 20


@dataclass(slots=True, kw_only=True)
class LayerTable:
    """What was found of each layer, by where it ran (``host`` or ``device``) and its name.

    ``too_large`` are those whose results do not fit into a device's reply; ``broken`` is what
    ended the device's part; ``runtimes`` are what ran the layers there.
    """

    layers: tuple[Layer, ...]
    accumulated: dict[str, dict[str, Distance]] = field(default_factory=dict)
    local: dict[str, dict[str, Distance]] = field(default_factory=dict)
    too_large: tuple[str, ...] = ()
    broken: EdgeError | None = None
    runtimes: tuple[str, ...] = ()

    def worst_first(self, by: str = "local") -> list[Layer]:
        """Give the layers, by what the device said of them, else this computer."""
        found = self.local if by == "local" else self.accumulated

        def rank(layer: Layer) -> float:
            on_device = found.get("device", {}).get(layer.name)
            return (on_device or found["host"][layer.name]).rank

        return sorted(self.layers, key=rank)

    def record(self, layer: Layer) -> dict[str, Any]:
        """Give what was found of a layer as plain data."""
        record: dict[str, Any] = {"name": layer.name, "op": layer.op, "nodes": layer.nodes}
        for where in ("host", "device"):
            for kind, found in (("accumulated", self.accumulated), ("local", self.local)):
                record[f"{where}_{kind}"] = found.get(where, {}).get(layer.name)
        return record


def measure_layers(
    made: LayerBuild, data: Dataset, count: int, on_progress: OnProgress
) -> LayerTable:
    """Measure all layers on this computer, on the first samples of some data.

    Raises:
        DataError: A sample cannot be used.
        QuantizeError: A graph does not run here.
    """
    from edgesdk.quantize.layers import measure_on_host

    def samples() -> Iterable[dict[str, np.ndarray]]:
        return itertools.islice(data.samples(), count)

    table = LayerTable(layers=made.graphs.layers, accumulated={"host": {}}, local={"host": {}})
    for group in measure_on_host(made.graphs, samples, on_progress=on_progress):
        table.accumulated["host"].update(group.accumulated)
        table.local["host"].update(group.local)
    return table


def measure_layers_on_device(  # noqa: PLR0917 - each is of another type
    table: LayerTable,
    made: LayerBuild,
    session: Session,
    data: Dataset,
    count: int,
    on_progress: OnProgress,
    *,
    force_target: bool,
    timeout_s: float,
    bases: Bases | None,
) -> None:
    """Measure the layers in the device's own runtime, group by group, and add that to a table.

    What was measured before the device failed stays; the table says what broke.

    Raises:
        BuildError: The target's backends do not show the layers.
    """
    from edgesdk.build.debug import bundle_layers
    from edgesdk.deploy.layers import run_for_a_look
    from edgesdk.quantize.layers import compare, groups_of, run_tapped

    first = next(iter(data.samples()))
    table.accumulated["device"], table.local["device"] = {}, {}
    groups = groups_of(table.layers)
    large = [g for g in groups if sum(one.elements for one in g) * 4 > _DEVICE_BYTES]
    table.too_large = tuple(one.name for group in large for one in group)
    with tempfile.TemporaryDirectory(prefix="edgesdk-debug-") as folder:

        def note(proven: Proven) -> None:
            used = [
                f"{r.runtime} {r.version or ''}".strip() for r in proven.self_check.runtimes
            ]
            table.runtimes = tuple(dict.fromkeys((*table.runtimes, *used)))

        def answers(tapped: Tapped) -> Iterable[dict[str, np.ndarray]]:
            bundle = bundle_layers(made, tapped, first, Path(folder) / "bundle")
            for given in run_for_a_look(
                session,
                bundle,
                itertools.islice(data.samples(), count),
                profile=made.profile,
                force_target=force_target,
                timeout_s=timeout_s,
                bases=bases,
                on_proven=note,
                on_progress=on_progress,
            ):
                yield {result: given[output] for output, result in tapped.outputs.items()}

        for group in groups:
            if group in large:
                continue
            for kind, tapped in (
                (table.accumulated, made.graphs.accumulated(group)),
                (table.local, made.graphs.local(group)),
            ):
                floats = run_tapped(
                    made.graphs.float_results(group),
                    itertools.islice(data.samples(), count),
                    exact=True,
                )
                try:
                    (found,) = compare(group, floats, answers(tapped))
                except (DeviceError, LinkError) as exc:
                    table.broken = exc
                    return
                kind["device"].update(found)


def price_rows(budget: Mapping[str, Any] | None, known: Iterable[str]) -> list[tuple[str, str]]:
    """Say what has to stay in float for the limit, and what that costs."""
    if budget is None:
        return []
    unit = "noise" if budget["metric"] == "noise" else f"loss of {budget['metric']}"
    before, after, limit = (float(f"{budget[key]:.4g}") for key in ("before", "after", "limit"))
    if budget["before"] <= budget["limit"]:
        said = f"nothing has to: {unit} is {before:g} with all in 8 bits (limit {limit:g})"
        return [("keep in float", said)]
    if budget["after"] > budget["limit"]:
        said = f"no mix of both keeps the limit: {unit} is {before:g} (limit {limit:g})"
        return [("keep in float", said)]
    kept = budget["kept"]
    cost = f"{size_text(budget['bytes_added'])} more"
    if budget["expected_time"] is not None:
        cost += f", {budget['expected_time']:.2f} times the time (assumed)"
    said = f"{len(kept)} nodes bring {unit} from {before:g} to {after:g} (limit {limit:g}): "
    rows = [("keep in float", said + cost)]
    names = names_to_keep(budget, known)
    if names:
        lines = ["keep_float:", *(f"  - {json.dumps(name)}" for name in names)]
        rows.append(("recipe", "\n".join(lines)))
    nameless = len(kept) - len(names)
    if nameless:
        rows.append(
            (
                "note",
                f"{nameless} of them have no name in the model, so a recipe cannot name them: "
                f"--max-drop {limit:g} finds them",
            )
        )
    return rows


def names_to_keep(budget: Mapping[str, Any] | None, known: Iterable[str]) -> list[str]:
    """Name what a budget kept in float, as far as a recipe can: by names the model has."""
    if budget is None or budget["after"] > budget["limit"]:
        return []
    names = set(known) - {""}
    return [name for name in budget["kept"] if name in names]
