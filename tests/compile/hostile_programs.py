"""Exported programs that were tampered with: what runs code in torch's own reader, and random damage."""

import copy
import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hostile_messages import flipped
from torch import nn

from compile.program_file import program_bytes, read_program
from modeltree.errors import FormatError

ROOT = "archive"


class Spring:
    """Writes a file when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.trap, "sprung")


def sound() -> bytes:
    """A small exported network, with a buffer and a dynamic batch."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    x = torch.zeros(2, 3, 4, 4)
    return program_bytes(torch.export.export(network.eval(), (x,), dynamic_shapes=({0: torch.export.Dim("n")},)))


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {"/".join(name.split("/")[1:]): archive.read(name) for name in archive.namelist()}


def archive(parts: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as written:
        for name, data in parts.items():
            written.writestr(f"{ROOT}/{name}", data)
    return buffer.getvalue()


def armed(trap: Path) -> dict[str, bytes]:
    """What springs the trap in a reader that follows it; by what it is."""
    parts, graph = members(sound()), json.loads(members(sound())["models/model.json"])
    spring, call = pickle.dumps(Spring(trap)), f"__import__('pathlib').Path({str(trap)!r}).write_text('sprung')"

    def with_graph(change: Callable[[dict[str, Any]], None]) -> bytes:
        changed = copy.deepcopy(graph)
        change(changed)
        return archive(parts | {"models/model.json": json.dumps(changed).encode()})

    def with_config(kind: str, entry: dict[str, Any], member: str) -> bytes:
        name = f"data/{kind}/model_{kind}_config.json"
        config = json.loads(parts[name])
        config["config"]["0.weight"] = entry
        return archive(parts | {name: json.dumps(config).encode(), f"data/{kind}/{member}": spring})

    def pickled(member: str) -> dict[str, Any]:
        return {"path_name": member, "is_param": False, "use_pickle": True, "tensor_meta": None}

    def first(change: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
        return lambda g: g["graph_module"]["graph"]["nodes"][0].update(change)

    def renamed(g: dict[str, Any]) -> None:
        text = json.dumps(g).replace('"name": "input"', '"name": ' + json.dumps(f"x={call}")).replace(
            '"input": {', json.dumps(f"x={call}") + ": {"
        )  # fmt: skip
        g.clear()
        g.update(json.loads(text))

    def sized(g: dict[str, Any]) -> None:
        for value in g["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = call

    text = {"name": "self", "arg": {"as_string": str(trap)}, "kind": 1}
    return {
        "sample inputs": archive(parts | {"data/sample_inputs/model.pt": spring}),
        "a pickled weight": with_config("weights", pickled("weight_9"), "weight_9"),
        "a pickled constant": with_config("constants", pickled("tensor_9"), "tensor_9"),
        "an opaque object": with_config("constants", pickled("opaque_obj_0"), "opaque_obj_0"),
        "a custom object": with_config("constants", pickled("custom_obj_0"), "custom_obj_0"),
        "weights of the old form": archive(parts | {"data/weights/model.pt": spring}),
        "a size that is a call": with_graph(sized),
        "a guard": with_graph(lambda g: g.update(guards_code=[call])),
        "a name that is code": with_graph(renamed),
        "os.system": with_graph(first({"target": "torch.os.system", "inputs": [text]})),
        "torch.load": with_graph(first({"target": "torch.load", "inputs": [text]})),
        "operator.attrgetter": with_graph(first({"target": "_operator.attrgetter", "inputs": [text]})),
        "a file as a tensor": with_graph(first({"target": "torch.ops.aten.from_file.default", "inputs": [text]})),
        "a graph's own objects": with_graph(
            lambda g: g["graph_module"]["graph"].update(
                custom_obj_values={"x": {"name": "x", "class_fqn": "os.system"}}
            )
        ),
        "a container of another kind": with_graph(
            lambda g: g["graph_module"]["module_call_graph"][0]["signature"].update(
                in_spec='[1, {"type": "collections.defaultdict", "context": '
                '"{\\"default_factory_module\\": \\"os\\", \\"default_factory_name\\": \\"abort\\", '
                '\\"dict_context\\": []}", "children_spec": []}]'
            )
        ),
    }


def bloated() -> dict[str, bytes]:
    """Small files that promise a lot of memory."""
    parts = members(sound())
    name = "data/weights/model_weights_config.json"
    files = {
        "compressed members": archive(
            parts | {"data/weights/weight_0": bytes(1 << 22)}, compression=zipfile.ZIP_DEFLATED
        )
    }
    for what, change in {
        "a weight larger than its member": {"sizes": [{"as_int": 1 << 40}], "strides": [{"as_int": 1}]},
        "a weight that repeats a number": {"sizes": [{"as_int": 1 << 34}], "strides": [{"as_int": 0}]},
        "a weight behind its member": {"storage_offset": {"as_int": 1 << 40}},
        "a weight before its member": {"storage_offset": {"as_int": -4}},
    }.items():
        config = json.loads(parts[name])
        next(iter(config["config"].values()))["tensor_meta"].update(change)
        files[what] = archive(parts | {name: json.dumps(config).encode()})
    return files


def damaged(rng: random.Random, data: bytes) -> bytes:
    """A sound file with bits flipped, cut short, or with values of its JSON exchanged."""
    way = rng.randrange(4)
    if way == 0:
        return flipped(rng, data)
    if way == 1:
        return data[: rng.randrange(len(data))]
    parts = members(data)
    name = rng.choice([name for name in parts if name.endswith(".json")])
    if way == 2:
        return archive(parts | {name: flipped(rng, parts[name])})
    value = json.loads(parts[name])
    holder, key = _place(rng, value)
    holder[key] = rng.choice([None, -1, 1 << 62, 0.5, "", "x" * 300, "../../x", "__import__('os')", [], {}, [[]], True])
    return archive(parts | {name: json.dumps(value).encode()})


def _place(rng: random.Random, value: Any) -> tuple[Any, Any]:
    """A container somewhere in a JSON value, and a key of it."""
    while True:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        if not isinstance(value[key], (dict, list)) or not value[key] or rng.random() < 0.1:
            return value, key
        value = value[key]


def outcome(data: bytes) -> str:
    """`read`, or `refused: why`; anything else is raised."""
    try:
        read_program(data)
    except FormatError as error:
        return f"refused: {error}"
    return "read"
