"""What `edgesdk.from_torch` does with modules in memory; `check` runs it in their process."""

import re

import torch
from torch import nn


class Mixed(nn.Module):
    """A part of it stays in inference mode, and one part in training."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5))
        self.last = nn.BatchNorm1d(8)

    def forward(self, values, scale=None):
        return self.last(self.first(values))


class Branches(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x + 1
        return x - 1


class Counts(nn.Module):
    def forward(self, x):
        total = 0.0
        for _ in range(int(x.max())):
            total = total + x
        return total


class Fixed(nn.Module):
    def forward(self, x):
        return x.reshape(3, 4) * 2


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        self.seen.add_(x.mean(0))
        return x + self.seen


class Chooses(nn.Module):
    """A branch on a value, as a graph can have it."""

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))


def line_of(cls, code):
    """Give ``file:line`` of a line of a class."""
    import inspect

    lines, start = inspect.getsourcelines(cls)
    number = next(index for index, line in enumerate(lines) if code in line)
    return f"{inspect.getsourcefile(cls)}:{start + number}"


def refused(from_torch, module, inputs, pattern, **choices):
    from edgesdk.errors import ModelError

    try:
        from_torch(module, inputs, **choices)
        said, hint = "it was taken", ""
    except ModelError as exc:
        said, hint = str(exc), exc.hint
    assert re.search(pattern, said), (type(module).__name__, pattern, said)
    return hint


def check(from_torch):
    torch.manual_seed(0)
    module = Mixed().train()
    module.last.eval()
    before = [part.training for part in module.modules()]
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    opened = from_torch(module, torch.randn(3, 4), dynamic=["values"], name="mixed")
    assert [part.training for part in module.modules()] == before
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert [(each.name, each.shape) for each in opened.source.inputs] == [
        ("values", ("batch", 4))
    ]

    half = Mixed().eval().to(torch.bfloat16)
    opened = from_torch(half, torch.randn(3, 4).to(torch.bfloat16))
    assert [each.dtype for each in opened.source.inputs] == ["float32"]
    assert next(half.parameters()).dtype == torch.bfloat16

    scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 2), nn.ReLU()))
    assert from_torch(scripted, torch.randn(3, 4)).source.outputs[0].shape == (3, 2)
    program = torch.export.export(nn.Linear(4, 2), (torch.randn(3, 4),))
    assert from_torch(program, torch.randn(3, 4)).source.outputs[0].shape == (3, 2)
    assert from_torch(Chooses(), torch.randn(3, 4)).source.outputs[0].shape == (3, 4)

    x = torch.ones(3, 4)
    where = re.escape(line_of(Branches, "x.sum() > 0"))
    assert "torch.where" in refused(from_torch, Branches(), x, where)
    where = re.escape(line_of(Counts, "for _ in range"))
    assert refused(from_torch, Counts(), x, where)
    refused(from_torch, Fixed(), x, "the model computes with 3", dynamic=["x"])
    remembers = Remembers()
    assert "output of forward" in refused(from_torch, remembers, x, "a call changes seen")
    assert not remembers.seen.any()
    refused(from_torch, Mixed(), torch.ones(3, 5), "cannot run model on its example inputs")
    refused(from_torch, Mixed(), x, "has 'values'", dynamic=["nothing"])
    refused(from_torch, object(), x, "it is a object")
    scripted = torch.jit.script(Branches())
    assert "torch.where" in refused(
        from_torch, scripted, x, re.escape(line_of(Branches, "x.sum() > 0"))
    )
    print("all well")
