"""The preprocessing block: what it refuses, and the numbers it makes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgesdk.data import Preprocess
from edgesdk.errors import DataError
from edgesdk.tensors import TensorInfo

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, size=(6, 8, 3), dtype=np.uint8)


def test_a_block_survives_json_and_comes_back_equal():
    block = Preprocess(resize=(4, 5), mean=(0.1, 0.2, 0.3), std=(1, 2, 3), color="bgr")
    assert Preprocess.from_json(json.loads(json.dumps(block.to_json()))) == block


def test_equal_blocks_have_equal_json_whether_numbers_were_whole_or_not():
    assert Preprocess(scale=1, mean=(0,)).to_json() == Preprocess(scale=1.0).to_json()


def test_every_option_is_spelled_out_in_json():
    record = Preprocess().to_json()
    assert record["resize"] is None
    assert record["layout"] == "nchw"
    assert len(record) == 11


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"colour": "rgb"}, "it has no option 'colour' (did you mean 'color'?)"),
        ({"color": "rbg"}, "color is 'rbg' (expected one of rgb, bgr, gray; did you mean"),
        ({"resize": [224]}, "resize is (224,) (expected [height, width] in pixels"),
        ({"resize": [224, 2.5]}, "resize is (224, 2.5)"),
        ({"resize": [20_000, 20_000]}, "each from 1 to 16384"),
        (
            {"resize": [8, 8], "crop": [9, 8]},
            "crop is [9, 8] (expected at most resize, [8, 8])",
        ),
        ({"mean": [0.1, 0.2]}, "mean is [0.1, 0.2] (expected 1 or 3 numbers)"),
        ({"std": [0, 1, 1]}, "std is [0.0, 1.0, 1.0] (expected numbers other than 0)"),
        ({"scale": 0}, "scale is 0.0 (expected a number other than 0"),
        ({"scale": "1/255"}, "scale is 1/255 (expected a number)"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"scale": True}, "scale is True"),
        ({"pad_value": 300}, "pad_value is 300 (expected a whole number from 0 to 255)"),
        ({"dtype": "float64"}, "dtype is 'float64'"),
        ([1], "it is a list (expected a mapping of option names to values)"),
    ],
)
def test_a_wrong_block_is_refused_with_what_was_expected(block, text):
    with pytest.raises(DataError) as caught:
        Preprocess.from_json(block)
    assert str(caught.value).startswith("cannot use the preprocess block: ")
    assert text in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(Preprocess().to_json())) | st.text(), JSON))
def test_anything_in_a_manifest_is_a_block_or_an_error(record):
    try:
        block = Preprocess.from_json(record)
    except DataError:
        return
    assert Preprocess.from_json(block.to_json()) == block


def test_pixels_are_scaled_then_shifted_then_divided():
    block = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    wanted = (PIXELS / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    made = block.apply(PIXELS)
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    np.testing.assert_allclose(made, wanted.transpose(2, 0, 1), rtol=1e-6)


def test_the_stated_range_holds_every_value():
    block = Preprocess(mean=(0.5, 0.2, 0.1), std=(0.5, -0.25, 1.0))
    black_and_white = np.stack([np.zeros((4, 3)), np.full((4, 3), 255)]).astype(np.uint8)
    made = block.apply(black_and_white)
    assert block.output_range == pytest.approx((made.min(), made.max()))


def test_bgr_turns_the_channels_round_and_nhwc_keeps_them_last():
    made = Preprocess(color="bgr", layout="nhwc", scale=1.0).apply(PIXELS)
    np.testing.assert_array_equal(made, PIXELS[:, :, ::-1])


def test_mean_is_in_the_order_of_the_channels_that_come_out():
    made = Preprocess(color="bgr", layout="nhwc", scale=1.0, mean=(1, 2, 3)).apply(PIXELS)
    np.testing.assert_array_equal(made, PIXELS[:, :, ::-1] - np.array([1.0, 2.0, 3.0]))


def test_gray_gives_one_channel():
    assert Preprocess(color="gray").apply(PIXELS).shape == (1, 6, 8)
    assert Preprocess(color="gray", layout="nhwc").apply(PIXELS[:, :, 0]).shape == (6, 8, 1)


def test_a_gray_picture_feeds_a_colour_model_with_three_equal_channels():
    made = Preprocess(scale=1.0).apply(PIXELS[:, :, 0])
    assert made.shape == (3, 6, 8)
    np.testing.assert_array_equal(made[0], made[2])


def test_whole_number_results_are_rounded_and_clipped():
    made = Preprocess(dtype="int8", scale=1.0, mean=(100.4,), layout="nhwc").apply(PIXELS)
    assert made.dtype == np.int8
    wanted = np.clip(np.rint(PIXELS - 100.4), -128, 127)
    np.testing.assert_array_equal(made, wanted)


def test_stretch_gives_the_asked_size_whatever_the_aspect():
    assert Preprocess(resize=(5, 7)).apply(PIXELS).shape == (3, 5, 7)


def test_fit_crop_cuts_the_long_side_in_the_middle():
    wide = np.zeros((4, 8), dtype=np.uint8)
    wide[:, 2:6] = 200
    made = Preprocess(
        resize=(4, 4), resize_mode="fit-crop", color="gray", scale=1.0, resize_filter="nearest"
    ).apply(wide)
    np.testing.assert_array_equal(made, np.full((1, 4, 4), 200.0))


def test_letterbox_pads_the_short_side_on_both_ends():
    wide = np.full((2, 4, 3), 255, dtype=np.uint8)
    made = Preprocess(resize=(4, 4), resize_mode="letterbox", pad_value=9, scale=1.0).apply(
        wide
    )
    np.testing.assert_array_equal(made[0, :, 0], [9, 255, 255, 9])


def test_a_picture_of_one_pixel_height_still_fits_a_letterbox():
    thin = np.full((1, 1000), 255, dtype=np.uint8)
    made = Preprocess(resize=(8, 8), resize_mode="letterbox", color="gray").apply(thin)
    assert made.shape == (1, 8, 8)


def test_crop_takes_the_middle():
    made = Preprocess(crop=(2, 2), layout="nhwc", scale=1.0).apply(PIXELS)
    np.testing.assert_array_equal(made, PIXELS[2:4, 3:5])


def test_a_picture_smaller_than_the_crop_is_an_error():
    with pytest.raises(DataError, match="it has 6 x 8 pixels, height first") as caught:
        Preprocess(crop=(7, 7)).apply(PIXELS)
    assert caught.value.hint == "add resize to the preprocess block"


def test_a_picture_and_its_pixels_give_the_same():
    block = Preprocess(resize=(5, 5), resize_mode="letterbox")
    np.testing.assert_array_equal(block.apply(Image.fromarray(PIXELS)), block.apply(PIXELS))


def test_alpha_is_dropped_and_a_palette_is_looked_up():
    alpha = np.dstack([PIXELS, np.zeros((6, 8), np.uint8)])
    block = Preprocess(scale=1.0)
    np.testing.assert_array_equal(block.apply(alpha), block.apply(PIXELS))
    palette = Image.fromarray(PIXELS).quantize(4)
    np.testing.assert_array_equal(block.apply(palette), block.apply(palette.convert("RGB")))


def test_more_than_8_bits_per_channel_is_refused():
    deep = Image.fromarray(np.zeros((4, 4), dtype=np.uint16))
    with pytest.raises(DataError, match="its pixels are of mode 'I;16'"):
        Preprocess().apply(deep)
    with pytest.raises(DataError, match=r"it is float32\[4, 4\]"):
        Preprocess().apply(np.zeros((4, 4), np.float32))


def test_a_block_says_why_it_does_not_fit_an_input():
    image = TensorInfo(name="x", dtype="float32", shape=("N", 3, 224, 224))
    assert Preprocess(resize=(224, 224)).why_not_input(image) is None
    assert Preprocess().why_not_input(image) is None
    assert "it makes [3, 192, 224]" in str(Preprocess(resize=(192, 224)).why_not_input(image))
    assert "1 channel(s) at axis 1" in str(Preprocess(color="gray").why_not_input(image))
    assert "3 channel(s) at axis 3" in str(Preprocess(layout="nhwc").why_not_input(image))
    assert "makes uint8" in str(Preprocess(dtype="uint8").why_not_input(image))
    flat = TensorInfo(name="x", dtype="float32", shape=(1, 784))
    assert "it makes 4 dimensions" in str(Preprocess().why_not_input(flat))
