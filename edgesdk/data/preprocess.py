"""From a picture to a model input: one block of plain data and the one function that obeys it.

The block is written in the recipe, travels in the bundle's manifest, and the same `apply` runs
at calibration, at evaluation and for check vectors. So it holds values only, never code, and
every value is checked when it is read, because a manifest comes from outside.

The steps, in this order: colour, resize, crop, ``(pixel * scale - mean) / std``, dtype, layout.
Pixels are taken as the file stores them: an EXIF orientation is ignored and alpha is dropped,
as the usual training pipelines do.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, cast

from edgesdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from edgesdk.tensors import TensorInfo

__all__ = ["Preprocess"]

_MAX_SIDE = 16_384
_MAX_PIXELS = 64 << 20
_CHOICES: dict[str, tuple[str, ...]] = {
    "resize_mode": ("stretch", "fit-crop", "letterbox"),
    "resize_filter": ("bilinear", "bicubic", "nearest"),
    "color": ("rgb", "bgr", "gray"),
    "layout": ("nchw", "nhwc"),
    "dtype": ("float32", "float16", "uint8", "int8", "int32"),
}
_EIGHT_BIT_MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "RGBa",
    "CMYK",
    "YCbCr",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How pixels become the values a model was trained on.

    Attributes:
        resize: Height and width in pixels to resize to; None leaves the size.
        resize_mode: ``"stretch"`` changes the aspect, ``"fit-crop"`` covers the box and cuts
            what stands out, ``"letterbox"`` fits inside and pads the rest, picture in the
            middle.
        resize_filter: ``"bilinear"``, ``"bicubic"`` (both with antialiasing) or ``"nearest"``.
        pad_value: Pixel value, 0 to 255, of a letterbox's border.
        crop: Height and width in pixels to cut from the middle after resizing; None: whole.
        color: Order of the channels, or ``"gray"`` for one.
        layout: ``"nchw"`` (channels first) or ``"nhwc"`` (channels last).
        scale: Pixels, 0 to 255, are multiplied by this first; 1/255 gives 0 to 1.
        mean: Then this is subtracted; one value, or one per channel in the order of ``color``.
        std: Then the values are divided by this; one value or one per channel.
        dtype: What the model takes; whole numbers are rounded and clipped to what it can hold.
    """

    resize: tuple[int, int] | None = None
    resize_mode: Literal["stretch", "fit-crop", "letterbox"] = "stretch"
    resize_filter: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    pad_value: int = 0
    crop: tuple[int, int] | None = None
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    scale: float = 1.0 / 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: Literal["float32", "float16", "uint8", "int8", "int32"] = "float32"

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            _check_choice(name, getattr(self, name), known)
        for name in ("resize", "crop"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _size(name, getattr(self, name)))
        if type(self.pad_value) is not int or not 0 <= self.pad_value <= 255:
            raise _wrong("pad_value", self.pad_value, "a whole number from 0 to 255")
        object.__setattr__(self, "scale", _numbers("scale", [self.scale], 1)[0])
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), self.channels))
        if self.scale == 0:
            raise _wrong(
                "scale", self.scale, "a number other than 0, e.g. 1/255 = 0.00392156862745098"
            )
        if min(map(abs, self.std)) < 1e-9:
            raise _wrong("std", list(self.std), "numbers other than 0")
        if self.resize and self.crop:
            _check_inside(self.crop, self.resize)

    @property
    def channels(self) -> int:
        """How many channels a result has: 1 for gray, else 3."""
        return 1 if self.color == "gray" else 3

    @property
    def output_shape(self) -> tuple[int, int, int] | None:
        """Shape of a result without batch, ordered as ``layout``; None if the size is free."""
        size = self.crop or self.resize
        if size is None:
            return None
        return (self.channels, *size) if self.layout == "nchw" else (*size, self.channels)

    @property
    def output_range(self) -> tuple[float, float]:
        """Smallest and largest value that any picture can give."""
        ends = [
            (pixel * self.scale - self.mean[channel % len(self.mean)])
            / self.std[channel % len(self.std)]
            for pixel in (0, 255)
            for channel in range(self.channels)
        ]
        return min(ends), max(ends)

    @classmethod
    def from_json(cls, block: object) -> Preprocess:
        """Read a block from a recipe or a manifest.

        Raises:
            DataError: It is not a mapping, has an unknown key, or a value is wrong.
        """
        if not isinstance(block, dict):
            raise DataError(
                f"cannot use the preprocess block: it is a {type(block).__name__} "
                "(expected a mapping of option names to values)",
                hint="see configs/recipes for examples",
            )
        known = [field.name for field in fields(cls)]
        for key in block:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                raise DataError(
                    f"cannot use the preprocess block: it has no option {key!r}"[:200]
                    + (f" (did you mean {near[0]!r}?)" if near else ""),
                    hint="options are " + ", ".join(known),
                    key=str(key)[:100],
                )
        record = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in block.items()
        }
        return cls(**cast("dict[str, Any]", record))

    def to_json(self) -> dict[str, Any]:
        """Give the block as plain data, every option spelled out."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in record.items()
        }

    def why_not_input(self, info: TensorInfo) -> str | None:
        """Say why what this block makes cannot be fed to an input, or None if it can."""
        if info.dtype != self.dtype:
            return f"it makes {self.dtype} and the input takes {info.dtype}"
        if len(info.shape) != 4:
            return f"it makes 4 dimensions with the batch and the input is {info}"
        channel_axis = 1 if self.layout == "nchw" else 3
        channels = info.shape[channel_axis]
        if isinstance(channels, int) and channels != self.channels:
            return (
                f"it makes {self.channels} channel(s) at axis {channel_axis} "
                f"({self.color}, {self.layout}) and the input is {info}"
            )
        for have, want in zip(self.output_shape or (), info.shape[1:], strict=False):
            if isinstance(want, int) and want != have:
                return f"it makes {list(self.output_shape or ())} and the input is {info}"
        return None

    def apply(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """Turn one picture into one model input, without a batch dimension.

        Args:
            image: A Pillow picture, or uint8 pixels as ``[H, W]`` (gray), ``[H, W, 3]`` (RGB)
                or ``[H, W, 4]`` (RGBA).

        Returns:
            ``[C, H, W]`` or ``[H, W, C]``, after ``layout``.

        Raises:
            DataError: The picture has another depth than 8 bit, or is smaller than ``crop``.
        """
        import numpy as np

        picture = _to_picture(image).convert("L" if self.color == "gray" else "RGB")
        picture = self._resized(picture)
        picture = self._cropped(picture)
        pixels = np.asarray(picture, dtype=np.uint8)
        if pixels.ndim == 2:
            pixels = pixels[:, :, np.newaxis]
        if self.color == "bgr":
            pixels = pixels[:, :, ::-1]
        # In float64, then rounded once: how the steps are grouped does not show.
        values = (pixels * self.scale - np.array(self.mean)) / np.array(self.std)
        if self.dtype in ("float32", "float16"):
            # What float16 cannot hold becomes infinite; the range check reports it.
            with np.errstate(over="ignore"):
                result = values.astype(self.dtype)
        else:
            bounds = np.iinfo(self.dtype)
            result = np.clip(np.rint(values), bounds.min, bounds.max).astype(self.dtype)
        if self.layout == "nchw":
            result = result.transpose(2, 0, 1)
        return np.ascontiguousarray(result)

    def _resized(self, picture: Image.Image) -> Image.Image:
        from PIL import Image

        if self.resize is None:
            return picture
        height, width = self.resize
        resample = Image.Resampling[self.resize_filter.upper()]
        if self.resize_mode == "stretch":
            return picture.resize((width, height), resample)
        ratios = (height / picture.height, width / picture.width)
        ratio = max(ratios) if self.resize_mode == "fit-crop" else min(ratios)
        if self.resize_mode == "fit-crop":
            # Cut before resizing: the same pixels, and a very long picture needs no huge copy.
            box_width, box_height = width / ratio, height / ratio
            left = (picture.width - box_width) / 2
            top = (picture.height - box_height) / 2
            box = (
                max(0.0, left),
                max(0.0, top),
                min(float(picture.width), left + box_width),
                min(float(picture.height), top + box_height),
            )
            return picture.resize((width, height), resample, box=box)
        inner_width = min(width, max(1, round(picture.width * ratio)))
        inner_height = min(height, max(1, round(picture.height * ratio)))
        border = (self.pad_value,) * len(picture.getbands())
        canvas = Image.new(
            picture.mode, (width, height), border if len(border) > 1 else border[0]
        )
        inner = picture.resize((inner_width, inner_height), resample)
        canvas.paste(inner, ((width - inner_width) // 2, (height - inner_height) // 2))
        return canvas

    def _cropped(self, picture: Image.Image) -> Image.Image:
        if self.crop is None:
            return picture
        height, width = self.crop
        if picture.height < height or picture.width < width:
            raise DataError(
                f"cannot crop a picture: it has {picture.height} x {picture.width} pixels, "
                f"height first (at least {height} x {width} expected)",
                hint="add resize to the preprocess block",
            )
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        return picture.crop((left, top, left + width, top + height))


def _to_picture(image: Image.Image | np.ndarray) -> Image.Image:
    import numpy as np
    from PIL import Image

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (
            image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))
        ):
            raise DataError(
                f"cannot preprocess an array: it is {image.dtype}{list(image.shape)} "
                "(expected uint8 pixels [H, W], [H, W, 3] or [H, W, 4])"
            )
        if image.size == 0:
            raise DataError(f"cannot preprocess an array: {list(image.shape)} holds no pixel")
        return Image.fromarray(np.ascontiguousarray(image))
    if image.mode not in _EIGHT_BIT_MODES:
        raise DataError(
            f"cannot preprocess a picture: its pixels are of mode {image.mode!r} "
            "(expected 8 bit per channel)",
            hint="convert it to an 8 bit PNG, or give arrays (.npz) instead of pictures",
            mode=image.mode,
        )
    if image.mode in ("P", "PA") and "transparency" in image.info:
        return image.convert("RGBA")
    return image


def _wrong(name: str, seen: object, expected: str) -> DataError:
    return DataError(
        f"cannot use the preprocess block: {name} is {str(seen)[:100]} (expected {expected})",
        hint=f"correct {name} in the recipe's preprocess block",
        option=name,
    )


def _check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.4)
        suggestion = f"; did you mean {near[0]!r}?" if near else ""
        raise _wrong(name, repr(value), "one of " + ", ".join(known) + suggestion)


def _size(name: str, value: object) -> tuple[int, int]:
    sides = tuple(value) if isinstance(value, (tuple, list)) else ()
    if (
        len(sides) != 2
        or any(type(side) is not int or not 1 <= side <= _MAX_SIDE for side in sides)
        or sides[0] * sides[1] > _MAX_PIXELS
    ):
        raise _wrong(name, value, f"[height, width] in pixels, each from 1 to {_MAX_SIDE}")
    return cast("tuple[int, int]", sides)


def _numbers(name: str, value: object, count: int) -> tuple[float, ...]:
    values = value if isinstance(value, (tuple, list)) else (value,)
    expected = "a number" if count == 1 else f"1 or {count} numbers"
    if len(values) not in (1, count):
        raise _wrong(name, list(values), expected)
    numbers = []
    for number in values:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise _wrong(name, number, expected)
        try:
            numbers.append(float(number))
        except OverflowError:
            numbers.append(math.inf)
        if not abs(numbers[-1]) < 1e9:
            raise _wrong(name, numbers[-1], expected + " below a billion")
    return tuple(numbers)


def _check_inside(crop: tuple[int, int], resize: tuple[int, int]) -> None:
    if crop[0] > resize[0] or crop[1] > resize[1]:
        raise _wrong("crop", list(crop), f"at most resize, {list(resize)}")
