"""Render pictures of text for the README's tour: input for a text detector, no download.

    python configs/tour/render_text.py FOLDER [COUNT]

Writes COUNT (default 48) PNG files of 640 x 640 pixels with words in Pillow's built-in font at
random places, sizes, colours and angles; the same ones each time.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WORDS = (
    "bundle agent worker channel release rollback verify measure quantize deploy serial board "
    "Invoice 2026-11 Total 48.20 Exit Platform 9 Fragile This side up 230 V 50 Hz Do not bend"
).split()
SIDE = 640


def render(seed: int) -> Image.Image:
    """Draw one picture."""
    dice = random.Random(seed)
    paper = tuple(dice.randint(150, 255) for _ in range(3))
    picture = Image.new("RGB", (SIDE, SIDE), paper)
    for _ in range(dice.randint(4, 12)):
        text = " ".join(dice.choices(WORDS, k=dice.randint(1, 4)))
        font = ImageFont.load_default(size=dice.randint(18, 56))
        left, top, right, bottom = (round(side) for side in font.getbbox(text))
        patch = Image.new("RGBA", (right - left + 8, bottom - top + 8), (0, 0, 0, 0))
        ink = (*(dice.randint(0, 110) for _ in range(3)), 255)
        ImageDraw.Draw(patch).text((4 - left, 4 - top), text, font=font, fill=ink)
        patch = patch.rotate(
            dice.uniform(-12, 12), expand=True, resample=Image.Resampling.BICUBIC
        )
        place = (dice.randint(-20, SIDE - 100), dice.randint(0, SIDE - 60))
        picture.paste(patch, place, patch)
    return picture


def main() -> None:
    """Write the pictures that the command line asks for."""
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python configs/tour/render_text.py FOLDER [COUNT]")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 48
    for seed in range(count):
        render(seed).save(folder / f"text-{seed:03}.png")
    print(f"{count} pictures in {folder}")


if __name__ == "__main__":
    main()
