"""How a recipe is written in a file: pydantic reads it, `Recipe` is what the program uses."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from edgesdk.data.preprocess import Preprocess
from edgesdk.plan.recipe import Precision, Recipe, WorkerLimits, parse_share
from edgesdk.quantize.means import Means
from edgesdk.quantize.prune_spec import parse_prune

__all__ = ["RecipeFile"]


class LimitsBlock(BaseModel):
    """What the process that runs the model on a device may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory_bytes: int | None = Field(None, ge=64 << 20, le=1 << 50)
    niceness: int | None = Field(None, ge=0, le=19)
    run_s: float | None = Field(
        None, ge=0.001, le=86_400, description="how long one inference may take"
    )


class RecipeFile(BaseModel):
    """A recipe file. Every key may be left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: Precision | None = Field(
        None, description="int8 needs calibration data; left out: int8 where there is some"
    )
    max_drop: float | str | None = Field(
        None, description="the largest loss allowed, like 1%; left out: 1% where labels are"
    )
    means: tuple[Means, ...] | None = Field(
        None,
        description="accuracy means that may be tried; left out: all but entropy and moving "
        "average",
    )
    prune: str | None = Field(
        None, description="2:4, unstructured:0.5 or channels:0.3; left out: nothing"
    )
    requantize: bool = Field(False, description="quantize anew what arrives quantized")
    calib_samples: int = Field(128, ge=1, le=1_000_000)
    prefer: tuple[str, ...] = Field((), description="backend ids to try first")
    avoid: tuple[str, ...] = Field((), description="backend ids not to use")
    keep_float: tuple[str, ...] = Field((), description="node names or operator types")
    threads: int | None = Field(None, ge=1, le=1024)
    checks: int = Field(4, ge=1, le=64)
    preprocess: dict[str, Any] | None = Field(
        None, description="from a picture to a model input: resize, crop, color, mean, std ..."
    )
    limits: LimitsBlock | None = Field(
        None,
        description="what the worker on the device may take: memory_bytes, niceness, run_s",
    )

    def to_recipe(self) -> Recipe:
        """Turn the file into the value the program uses."""
        record = self.model_dump()
        block = record.pop("preprocess")
        preprocess = Preprocess.from_json(block) if block is not None else None
        if record["max_drop"] is not None:
            record["max_drop"] = parse_share(record["max_drop"])
        if record["prune"] is not None:
            record["prune"] = parse_prune(record["prune"])
        limits = record.pop("limits")
        return Recipe(
            **record,
            preprocess=preprocess,
            limits=None if limits is None else WorkerLimits(**limits),
        )
