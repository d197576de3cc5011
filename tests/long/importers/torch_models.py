"""Train small PyTorch models on real data and save each in every form; runs in the toolchain.

Usage: ``python torch_models.py DATA OUT``. DATA holds ``digits.npz`` and ``speech.npz`` with
``x``, ``y`` (to train on) and ``test_x``, ``test_y``. OUT gets the models, the labelled data by
input name, and ``accuracy.json`` with what PyTorch itself scores.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

EPOCHS, BATCH = 12, 32


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.1),
            nn.AdaptiveAvgPool2d(2),
        )  # fmt: skip
        self.head = nn.Linear(128, 10)

    def forward(self, image):
        return self.head(self.body(image).flatten(1))


class Block(nn.Module):
    """The block of EfficientNet: expand, depthwise, squeeze and excite, project."""

    def __init__(self, width, expand=4):
        super().__init__()
        wide = width * expand
        self.expand = nn.Sequential(
            nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.SiLU(),
        )
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(wide, width // 2, 1),
            nn.SiLU(),
            nn.Conv2d(width // 2, wide, 1),
            nn.Sigmoid(),
        )
        self.project = nn.Sequential(
            nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x):
        y = self.depthwise(self.expand(x))
        return x + self.project(y * self.squeeze(y))


class Efficient(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU())
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.head = nn.Linear(16, 10)

    def forward(self, image):
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM in both directions and a GRU over the frames of a spoken digit."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(32, 24, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(48, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, features):
        frames, _ = self.lstm(features)
        frames, _ = self.gru(frames)
        return self.head(frames.mean(1))


class Transformer(nn.Module):
    """An encoder over the rows of a digit."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.place = nn.Parameter(torch.randn(1, 8, 32) * 0.1)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(32, 10)

    def forward(self, rows):
        return self.head(self.encoder(self.embed(rows) + self.place).mean(1))


class Words(nn.Module):
    """Looks its input up in a table, and answers with a dict."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(17, 4)
        self.head = nn.Linear(256, 10)

    def forward(self, pixels):
        seen = self.table(pixels).flatten(1)
        return {"logits": self.head(seen), "seen": seen}


def train(make, x, y, epochs=EPOCHS):
    torch.manual_seed(0)
    model = make()
    steps = epochs * -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            given = model(x[rows])
            logits = given["logits"] if isinstance(given, dict) else given
            nn.functional.cross_entropy(logits, y[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def score(model, x, y):
    with torch.no_grad():
        given = model(torch.from_numpy(x))
    logits = given["logits"] if isinstance(given, dict) else given
    return float((logits.argmax(1).numpy() == y).mean())


def save(name, model, x, out):
    """Save every form: exported with a free batch, traced, scripted, weights, pickled."""
    some = torch.from_numpy(x[:2])
    dim = torch.export.Dim("batch")
    torch.export.save(
        torch.export.export(model, (some,), dynamic_shapes=({0: dim},)), out / f"{name}.pt2"
    )
    if name != "words":
        with torch.no_grad():
            torch.jit.trace(model, (some,), check_trace=False).save(out / f"{name}-traced.pt")
    torch.jit.script(model).save(out / f"{name}-scripted.pt")


def main(data, out):
    with np.load(data / "digits.npz") as held:
        digits = {key: held[key] for key in held.files}
    with np.load(data / "speech.npz") as held:
        speech = {key: held[key] for key in held.files}
    images = [digits[key][:, None] for key in ("x", "test_x")]
    rows = [digits[key] for key in ("x", "test_x")]
    pixels = [(digits[key] * 16).astype(np.int64).reshape(-1, 64) for key in ("x", "test_x")]
    frames = [speech[key] for key in ("x", "test_x")]
    plan = {
        "cnn": (Cnn, "image", images, digits, EPOCHS),
        "efficient": (Efficient, "image", images, digits, 6),
        "recurrent": (Recurrent, "features", frames, speech, 25),
        "transformer": (Transformer, "rows", rows, digits, EPOCHS),
        "words": (Words, "pixels", pixels, digits, 3),
    }
    accuracy = {}
    for name, (make, given, (x, test), labels, epochs) in plan.items():
        model = train(make, x, labels["y"], epochs)
        accuracy[name] = score(model, test, labels["test_y"])
        save(name, model, x, out)
        np.savez(out / f"{name}-calib.npz", **{given: x[:100]})
        np.savez(out / f"{name}-test.npz", **{given: test}, labels=labels["test_y"])
        if name == "cnn":
            torch.save(model.state_dict(), out / "weights.pt")
            torch.save(model, out / "whole.pt")
            torch.save(model, out / "legacy.pt", _use_new_zipfile_serialization=False)
            some = torch.from_numpy(x[:2])
            for kind in ("bfloat16", "float16", "float64"):
                dtype = getattr(torch, kind)
                changed = train_copy(model).to(dtype)
                torch.export.save(
                    torch.export.export(changed, (some.to(dtype),)), out / f"cnn-{kind}.pt2"
                )
            learning = train_copy(model).train()
            torch.export.save(torch.export.export(learning, (some,)), out / "cnn-training.pt2")
    (out / "accuracy.json").write_text(json.dumps(accuracy))


def train_copy(model):
    copy = Cnn()
    copy.load_state_dict(model.state_dict())
    return copy.eval()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
