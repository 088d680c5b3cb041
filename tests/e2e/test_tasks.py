"""A network of several outputs, one channel and oblong images: searched without labels, compiled, run and served."""

import json
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from modeltree.errors import Remark
from nas.cli import main
from nas.config import SearchConfig
from nas.search import search
from runtime.server.serving import ServeConfig, Server
from runtime.session import Session

NETWORK = """
import dataclasses

import torch
from torch import nn


@dataclasses.dataclass
class Seen:
    mask: torch.Tensor
    box: torch.Tensor


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.mask, self.hidden, self.box = nn.Conv2d(16, 2, 1), nn.Linear(16 * 4 * 6, 24), nn.Linear(24, 4)

    def forward(self, x):
        x = torch.relu(self.two(torch.relu(self.one(x))))
        return Seen(mask=self.mask(x), box=self.box(torch.relu(self.hidden(torch.max_pool2d(x, 4).flatten(1)))))


def heads():
    torch.manual_seed(0)
    return Heads()


def box_error(outputs, targets):
    return -float((abs(outputs["box"] - targets["box"])).mean())

box_error.range, box_error.unit = (-5.0, 0.0), "box error"
"""
WIDTH, HEIGHT = 24, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The network's file, and digits as pictures without classes."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "heads.py").write_text(NETWORK)
    (folder / "pictures").mkdir()
    for number, digit in enumerate(load_digits().images[:120]):
        picture = Image.fromarray((digit * 255 / 16).round().astype("uint8"))
        picture.resize((WIDTH + 4, HEIGHT)).save(folder / "pictures" / f"{number}.png")
    return folder


def told(folder, **changes):
    options = {
        "base": f"{folder}/heads.py:heads", "weights": "factory", "data": f"images:{folder}/pictures", "N": 2,
        "image_size": f"{WIDTH}x{HEIGHT}", "channels": "L", "techniques": ("svd", "prune"), "budget": 40,
        "methods": ("surgery", "branch", "tree"), "finetune_steps": 5, "executor": "serial", "workers": 1,
        "image_codes": ("jpeg:75",),
    }  # fmt: skip
    return SearchConfig(**(options | changes))


@pytest.fixture(scope="module")
def found(folder):
    before = torch.get_num_threads()
    with pytest.warns(Remark, match="mask 2x16x24 as pixels, box 4 as numbers: --outputs"):
        searched = search(told(folder), folder / "run", cache=folder / "cache")
    torch.set_num_threads(before)
    return searched


@pytest.fixture(scope="module")
def bundle(found, folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compile.tuning.timed", lambda kernel, target: dict.fromkeys(kernel.tiles, 0.0))
        patch.setattr("sys.argv", ["nas", "compile", str(found.folder), "--method", "cloud_raw", "--out",
                                   str(folder / "bundle"), "--cache", str(folder / "compiled")])  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return folder / "bundle"


def test_answers_agree_with_the_base_network_by_kind(found):
    tree = found.tree
    assert [(one.name, one.shape, one.kind) for one in tree.outputs] == [
        ("mask", (2, HEIGHT, WIDTH), "pixels"), ("box", (4,), "numbers")
    ]  # fmt: skip
    assert (tree.classes, tree.quality, tree.version) == ((), "agreement", 3)
    assert tree.input_shape == (1, HEIGHT, WIDTH)
    assert found.summary["base"]["accuracy"] == pytest.approx(100.0, abs=1e-6)
    rows = {row["method"]: row["accuracy"] for row in found.summary["methods"]}
    assert rows["cloud_raw"] == pytest.approx(100.0, abs=1e-6)
    assert 50 < rows["cloud_jpeg"] < 100


def test_the_user_s_measure_is_what_is_searched_by(folder):
    (folder / "alone").mkdir()
    for number in range(60):
        (folder / "alone" / f"{number}.png").write_bytes((folder / "pictures" / f"{number}.png").read_bytes())
        np.savez(folder / "alone" / f"{number}.npz", box=np.float32([number % 3, 0, 1, 2]))
    config = told(
        folder, data=f"images:{folder}/alone", metric=f"{folder}/heads.py:box_error", methods=("surgery",),
        techniques=("svd",), finetune_steps=0, allow_chance=True,
    )  # fmt: skip
    searched = search(config, folder / "measured", cache=folder / "cache")
    assert searched.tree.quality == "box error"
    assert 0 < searched.summary["base"]["accuracy"] < 100


def test_the_runtime_answers_with_named_tensors_wherever_they_come_from(folder, bundle, found):
    picture = folder / "pictures" / "7.png"
    config = ServeConfig(bundle=bundle, listen=("grpc://127.0.0.1:0", "http://127.0.0.1:0"), workers=1, threads=1)
    with Server(config) as server:
        grpc_url, rest_url = server.urls
        with Session.open(bundle, mode="only-device") as alone:
            here = alone.infer(picture).outputs
            pixels = alone.device.entering(picture)[0]
        for url in (grpc_url, rest_url):
            for frames in (True, False):
                with Session.open(bundle, server=url, mode="only-cloud", frames=frames, timeout_s=60.0) as session:
                    there = session.infer(picture)
                assert there.answered_by == "cloud"
                assert list(there.outputs) == ["mask", "box"]
                for name, one in there.outputs.items():
                    np.testing.assert_allclose(one, here[name], rtol=1e-3, atol=1e-4)
        (model,) = server.engine.models
        described = json.load(urllib.request.urlopen(f"{rest_url}/v2/models/{model}"))
        request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": list(pixels.shape),
                               "data": pixels.ravel().tolist()}], "outputs": [{"name": "box"}]}  # fmt: skip
        answer = json.load(
            urllib.request.urlopen(f"{rest_url}/v2/models/{model}/infer", json.dumps(request).encode())
        )  # fmt: skip
    shapes = {one["name"]: one["shape"] for one in described["outputs"]}
    assert shapes == {"mask": [-1, 2, HEIGHT, WIDTH], "box": [-1, 4]}
    (box,) = answer["outputs"]
    np.testing.assert_allclose(box["data"], here["box"], rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        from nas.bases import build

        network = build(f"{folder}/heads.py:heads", num_classes=0, image_size="24x16", channels=1, any_output=True)
        wanted = network.eval()(torch.from_numpy(pixels))
    np.testing.assert_allclose(here["mask"], wanted.mask[0].numpy(), rtol=1e-3, atol=1e-3)


def test_a_run_prints_and_saves_what_was_answered(folder, bundle, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["nas", "run", str(bundle), str(folder / "pictures" / "7.png"), "--save",
                                     str(folder / "saved")])  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "mask 2x16x24 (mean " in capsys.readouterr().out
    with np.load(folder / "saved" / "000001_7.npz") as saved:
        assert saved["mask"].shape == (2, HEIGHT, WIDTH)
        assert saved["box"].shape == (4,)
