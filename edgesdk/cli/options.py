"""Options that several commands share, declared once so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesdk.cli.output import Format
from edgesdk.errors import InputError

__all__ = [
    "BackendOption",
    "CalibOption",
    "DataOption",
    "DeviceArgument",
    "FormatOption",
    "InventoryOption",
    "MaxDropOption",
    "ModelArgument",
    "PrecisionOption",
    "RecipeOption",
    "ShapeOption",
    "TargetOption",
    "TargetsDirOption",
    "parse_shapes",
]

FormatOption = Annotated[
    Format, typer.Option("--format", help="text for people, json for scripts.")
]
InventoryOption = Annotated[
    Path | None,
    typer.Option("--inventory", metavar="FILE", help="Inventory with your devices."),
]
TargetsDirOption = Annotated[
    Path | None,
    typer.Option("--targets-dir", metavar="DIR", help="Folder with your own target profiles."),
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="ONNX, TFLite, PyTorch, TorchScript, Keras, SavedModel, scikit-learn.",
    ),
]
DeviceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[DEVICE]",
        help="A name from the inventory or a URL: local:, ssh://user@host, "
        "serial:///dev/ttyUSB0?baud=115200, virtual:arm64. Default: the setting 'device'.",
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target", "-t", metavar="NAME", help="Kind of device; see 'edgesdk targets list'."
    ),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        "--input-shape",
        metavar="NAME=1,3,224,224",
        help="Fix the shape of an input; repeatable. For a model that is imported ? leaves an "
        "extent free, and NAME= may be left out where there is one input.",
    ),
]
CalibOption = Annotated[
    str | None,
    typer.Option(
        "--calib",
        metavar="DATA",
        help="Calibration data: .npz, folder of .npz or images, or module:function.",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Data to evaluate on, with labels where there are some; forms as for --calib.",
    ),
]
RecipeOption = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="What the build shall do, as YAML."),
]
BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="ID",
        help="Give this backend of the target every node it takes, before the others.",
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="P",
        help="fp32, fp16, int8, int16x8, int8-dynamic, int4-weights or auto. Default: int8 "
        "with calibration data, else fp32.",
    ),
]
MaxDropOption = Annotated[
    str | None,
    typer.Option(
        "--max-drop",
        metavar="1%",
        help="The largest loss allowed: points of the metric on labelled data, or power of the "
        "error at the worst output. Default: 1% where there are labels.",
    ),
]
_KEY_HELP = "A private SSH key, the .pub file of one in your ssh-agent, or 'agent'."
SignOption = Annotated[str, typer.Option("--sign", metavar="KEY", help=_KEY_HELP)]
KeyOption = Annotated[str, typer.Option("--key", metavar="KEY", help=_KEY_HELP)]
SignBundleOption = Annotated[
    str | None,
    typer.Option("--sign", metavar="KEY", help=f"Sign what is deployed. {_KEY_HELP}"),
]
AllowDowngradeOption = Annotated[
    bool,
    typer.Option(
        "--allow-downgrade",
        help="Have the device take a bundle signed earlier than what it has settled on; with "
        "--sign KEY, of a key that it knows.",
    ),
]


def parse_shapes(texts: list[str] | None) -> dict[str, tuple[int | None, ...]] | None:
    """Read ``NAME=1,3,224,224`` options; ``x`` may separate the extents too.

    The name is empty where it was left out; an extent written ``?`` is None.

    Raises:
        InputError: An option has another form, or names an input twice.
    """
    if not texts:
        return None
    shapes: dict[str, tuple[int | None, ...]] = {}
    for text in texts:
        name, equals, extents = text.rpartition("=")
        pieces = [piece.strip() for piece in extents.replace("x", ",").split(",")]
        if (equals and not name) or not all(_is_extent(piece) for piece in pieces):
            raise InputError(
                f"cannot use --shape {text!r}: not an input and its extents",
                hint="write --shape 'NAME=1,3,224,224', each extent a whole number above 0",
                shape=text,
            )
        if name in shapes:
            raise InputError(
                f"cannot use --shape {text!r}: input {name!r} has a shape already",
                hint="give one --shape for each input",
                shape=text,
            )
        shapes[name] = tuple(None if piece == "?" else int(piece) for piece in pieces)
    return shapes


def _is_extent(text: str) -> bool:
    return text == "?" or (
        text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0
    )
