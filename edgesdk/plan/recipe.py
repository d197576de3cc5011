"""The recipe: what the user wants, apart from what model and target are."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgesdk.errors import RecipeError
from edgesdk.near import suggest
from edgesdk.yaml_file import read_yaml

if TYPE_CHECKING:
    from edgesdk.data.preprocess import Preprocess
    from edgesdk.quantize.prune_spec import PruneSpec

__all__ = [
    "CALIBRATED",
    "PRECISIONS",
    "Recipe",
    "WorkerLimits",
    "load_recipe",
    "parse_share",
    "recipe_schema",
]

Precision = Literal["fp32", "fp16", "int8", "int16x8", "int8-dynamic", "int4-weights", "auto"]
PRECISIONS: tuple[Precision, ...] = (
    "fp32",
    "fp16",
    "int8",
    "int16x8",
    "int8-dynamic",
    "int4-weights",
    "auto",
)
#: Precisions whose scales come from calibration data.
CALIBRATED: tuple[Precision, ...] = ("int8", "int16x8")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """What the process that runs the model on a device may take; None leaves it unlimited.

    Attributes:
        memory_bytes: Its address space.
        niceness: How far it gives way to other processes, 0 to 19.
        run_s: How long one inference may take, in seconds.
    """

    memory_bytes: int | None = None
    niceness: int | None = None
    run_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the limits that are set as plain data."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the user wants of a build.

    Attributes:
        precision: One of `PRECISIONS`, or None: int8 where calibration data is given. ``auto``
            takes the first that keeps the budget.
        max_drop: The largest loss allowed: 0.01 is one point of the metric on labelled data, or
            one per cent of noise power at the worst output without labels. None: one point
            where there are labels.
        means: Accuracy means that may be tried; None for all.
        prune: What to prune before quantizing; None for nothing.
        requantize: Take a model that arrives quantized apart and quantize it anew.
        calib_samples: At most that many samples are used to calibrate.
        prefer: Backend ids to try first, in this order.
        avoid: Backend ids not to use.
        contestant: Of the target's contest, the backend that goes before the others; None for
            the target's order. Not for files: `edgesdk.plan.contest` sets it.
        keep_float: Names of nodes, or operator types, that stay in float.
        threads: Threads a runtime may use; None leaves it to the runtime.
        checks: At most that many check vectors go into the bundle.
        preprocess: From a picture file to a model input; None where data comes as arrays.
        limits: What the worker on the device may take; None for what the device allows.
    """

    precision: Precision | None = None
    max_drop: float | None = None
    means: tuple[str, ...] | None = None
    prune: PruneSpec | None = None
    requantize: bool = False
    calib_samples: int = 128
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    contestant: str | None = None
    keep_float: tuple[str, ...] = ()
    threads: int | None = None
    checks: int = 4
    preprocess: Preprocess | None = None
    limits: WorkerLimits | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the recipe as plain data."""
        record = asdict(self)
        record["prune"] = self.prune.text if self.prune else None
        record["preprocess"] = self.preprocess.to_json() if self.preprocess else None
        del record["limits"]  # a recipe without any is what it was before there were any
        if self.limits is not None:
            record["limits"] = self.limits.to_json()
        return record

    @property
    def sha256(self) -> str:
        """Digest of the canonical JSON form."""
        data = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(data.encode()).hexdigest()

    def resolve(self, *, calibrated: bool) -> Recipe:
        """Give the recipe with its precision decided.

        Raises:
            RecipeError: What is asked for needs calibration data and there is none.
        """
        if self.precision in CALIBRATED and not calibrated:
            raise RecipeError(
                f"cannot quantize to {self.precision}: there is no calibration data",
                hint="give 100 typical inputs or so with --calib, or use --precision fp32",
            )
        if self.prune is not None and not calibrated:
            raise RecipeError(
                f"cannot prune by {self.prune.text}: there is no calibration data",
                hint="give 100 typical inputs or so with --calib, or leave prune out",
            )
        return replace(self, precision=self.precision or ("int8" if calibrated else "fp32"))


def load_recipe(path: Path | None = None, **overrides: object) -> Recipe:
    """Read a recipe file (YAML); options that were given (not None) win over it.

    Raises:
        RecipeError: The file cannot be read, has an unknown key, or a value is out of range.
    """
    record: dict[str, Any] = {}
    if path is not None:
        hint = "see configs/recipes for examples"
        record = read_yaml(path, what="recipe", error=RecipeError, hint=hint)
    record |= {name: value for name, value in overrides.items() if value is not None}
    return _to_recipe(record, "the recipe" if path is None else str(path))


def parse_share(text: str | float) -> float:
    """Read ``1%`` or ``0.01``.

    Raises:
        RecipeError: It is no share from 0 to 1.
    """
    plain = str(text).strip()
    if isinstance(text, bool) or (not plain.endswith("%") and plain in ("1", "1.0")):
        raise RecipeError(
            f"cannot allow a drop of {plain}: it says everything, not one per cent",
            hint="write 1% or 0.01",
            max_drop=plain,
        )
    try:
        value = float(plain[:-1]) / 100 if plain.endswith("%") else float(plain)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise RecipeError(
            f"cannot allow a drop of {plain[:40]!r}: it is no share (expected 0% to 100%)",
            hint="write 1% or 0.01",
            max_drop=plain[:40],
        )
    return value


def recipe_schema() -> dict[str, Any]:
    """Give the JSON Schema of recipe files, for editors."""
    from edgesdk.plan.recipe_file import RecipeFile

    return RecipeFile.model_json_schema()


def _to_recipe(record: dict[str, Any], where: str) -> Recipe:
    from pydantic import ValidationError

    from edgesdk.plan.recipe_file import RecipeFile

    for key in record:
        if key not in RecipeFile.model_fields:
            known = list(RecipeFile.model_fields)
            raise RecipeError(
                f"cannot read {where}: there is no option {key!r}",
                hint=suggest(key, known) or f"options are {', '.join(known)}",
                key=key,
            )
    try:
        return RecipeFile.model_validate(record).to_recipe()
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise RecipeError(
            f"cannot read {where}: {place}: {first['msg'].lower()}, not {first['input']!r}"[
                :400
            ],
            key=place,
        ) from exc
