"""Write .pt2 and .pt files that run code in PyTorch's own loaders; runs in the toolchain.

Usage: ``python torch_attacks.py OUT``. Each file would create ``OUT/ran-NAME``. What of them
PyTorch really falls for is tried here and written into ``live.json``, so that the tests know
that the files mean business.
"""

import collections
import json
import pickle  # noqa: TID251  # what is written here is not loaded by edgesdk
import sys
import zipfile
from pathlib import Path

import torch


def load_plainly(file):
    """Do with a file what PyTorch's documentation shows."""
    try:
        if file.suffix == ".pt2":
            torch.export.load(str(file)).module()(torch.ones(2, 2))
        else:
            torch.jit.load(str(file))(torch.ones(2, 2))
    except Exception as exc:  # noqa: BLE001  # whatever it throws, what it ran is seen after
        print(file.name, type(exc).__name__, exc)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class Saves(torch.nn.Module):
    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, x):
        torch.save(x, self.path)
        return x


def rewrite(source, target, change):
    """Copy an archive with its records changed; ``change`` gets them by name."""
    with zipfile.ZipFile(source) as archive:
        root = archive.namelist()[0].split("/")[0]
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(records)
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in records.items():
            archive.writestr(f"{root}/{name}", data)


def in_graph(edit):
    def change(records):
        graph = json.loads(records["models/model.json"])
        edit(graph)
        records["models/model.json"] = json.dumps(graph).encode()

    return change


def main(out):
    whole = out / "whole.pt2"
    dim = torch.export.Dim("batch")
    program = torch.export.export(Net().eval(), (torch.ones(2, 2),), dynamic_shapes=({0: dim},))
    torch.export.save(program, whole)

    def code(name):
        return f"open({str(out / ('ran-' + name))!r}, 'w')"

    def size(graph):
        value = graph["graph_module"]["graph"]["tensor_values"]["linear"]["sizes"]
        value[0] = {"as_expr": {"expr_str": f"{code('size')} and 2", "hint": None}}

    def guard(graph):
        graph["guards_code"] = [f"{code('guard')} is not None"]

    def container(graph):
        first = graph["graph_module"]["module_call_graph"][0]["signature"]
        spec = json.loads(first["out_spec"])
        context = {
            "default_factory_module": "attack_module",
            "default_factory_name": "name",
            "dict_context": [],
        }
        spec[1] = {
            "type": "collections.defaultdict",
            "context": context,
            "children_spec": [spec[1]],
        }
        first["out_spec"] = json.dumps(spec)

    def weight(records):
        config = json.loads(records["data/weights/model_weights_config.json"])
        entry = next(iter(config["config"].values()))
        entry["use_pickle"] = True
        records["data/weights/model_weights_config.json"] = json.dumps(config).encode()
        records["data/weights/" + entry["path_name"]] = torch_pickle(out / "ran-weight")

    def constant(records):
        config = {
            "config": {
                "c": {
                    "path_name": "opaque_obj_0",
                    "is_param": False,
                    "use_pickle": True,
                    "tensor_meta": None,
                }
            }
        }
        records["data/constants/model_constants_config.json"] = json.dumps(config).encode()
        records["data/constants/opaque_obj_0"] = pickle.dumps(Touch(out / "ran-constant"))

    def sample(records):
        records["data/sample_inputs/model.pt"] = torch_pickle(out / "ran-sample")

    def name(graph):
        text = json.dumps(graph).replace(
            '"layer.weight"', json.dumps(f'a")or {code("name")}or("')
        )
        graph.clear()
        graph.update(json.loads(text))

    (out / "attack_module.py").write_text(f"{code('container')}\nname = dict\n")
    changes = {
        "size": in_graph(size),
        "guard": in_graph(guard),
        "container": in_graph(container),
        "name": in_graph(name),
        "weight": weight,
        "constant": constant,
        "sample": sample,
    }
    for attack, change in changes.items():
        rewrite(whole, out / f"{attack}.pt2", change)
    torch.jit.script(Saves(str(out / "ran-script"))).save(out / "script.pt")
    torch.save({"a": Touch(out / "ran-pickle")}, out / "pickle.pt")

    sys.path.insert(0, str(out))
    live = []
    for attack in [*changes, "script"]:
        file = out / (f"{attack}.pt" if attack == "script" else f"{attack}.pt2")
        load_plainly(file)
        if (out / f"ran-{attack}").exists():
            live.append(attack)
            (out / f"ran-{attack}").unlink()
    (out / "live.json").write_text(json.dumps(live))


def torch_pickle(path):
    """Give what torch.save writes of an object that opens a file for writing when loaded."""
    import io

    held = io.BytesIO()
    torch.save(collections.OrderedDict(a=Touch(path)), held)
    return held.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
