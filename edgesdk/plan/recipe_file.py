"""How a recipe is written in a file: pydantic reads it, `Recipe` is what the program uses."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgesdk.data.preprocess import Preprocess
from edgesdk.plan.recipe import Recipe

__all__ = ["RecipeFile"]


class RecipeFile(BaseModel):
    """A recipe file. Every key may be left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: Literal["fp32", "int8"] | None = Field(
        None, description="int8 needs calibration data; left out: int8 where there is some"
    )
    calib_samples: int = Field(128, ge=1, le=1_000_000)
    prefer: tuple[str, ...] = Field((), description="backend ids to try first")
    avoid: tuple[str, ...] = Field((), description="backend ids not to use")
    keep_float: tuple[str, ...] = Field((), description="node names or operator types")
    threads: int | None = Field(None, ge=1, le=1024)
    checks: int = Field(4, ge=1, le=64)
    preprocess: dict[str, Any] | None = Field(
        None, description="from a picture to a model input: resize, crop, color, mean, std ..."
    )

    def to_recipe(self) -> Recipe:
        """Turn the file into the value the program uses."""
        record = self.model_dump()
        block = record.pop("preprocess")
        preprocess = Preprocess.from_json(block) if block is not None else None
        return Recipe(**record, preprocess=preprocess)
