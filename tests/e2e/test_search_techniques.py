"""Trees with blocks replaced whole and computed in a number format: searched, compiled, and run as torch runs them."""

import sys

import msgspec
import numpy as np
import pytest
import torch

from compile.numerics import Numerics
from compile.program_file import read_program
from compile.targets import host
from modeltree.profiles import FormatPrice, load_profile, save_profile
from nas.cli import main
from nas.config import SearchConfig
from nas.search import search
from runtime.session import Session

NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F


class Inverted(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.expand, self.deep = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.norm, self.project = nn.BatchNorm2d(inner), nn.Conv2d(inner, width, 1)

    def forward(self, x):
        return x + self.project(F.hardswish(self.norm(self.deep(F.relu6(self.expand(x))))))


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before, self.behind = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n, tokens, width = x.shape
        made = self.qkv(self.before(x)).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*made.unbind(0)).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.proj(attended)
        return x + self.down(F.gelu(self.up(self.behind(x))))


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.inverted, self.layer = nn.Conv2d(3, 32, 4, 4), Inverted(32, 64), Layer(32, 4)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.layer(self.inverted(self.stem(x)).flatten(2).transpose(1, 2)).mean(1))


def mixed():
    torch.manual_seed(0)
    return Mixed()
"""
SLOWER = 1000
FORMAT = {"int8": 0.9, "int8-dot": 0.5}
"""What formats take of the time."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The network's file; a device so slow that all that saves time is done; a link that nothing crosses."""
    folder = tmp_path_factory.mktemp("techniques")
    (folder / "mixed.py").write_text(NETWORK)
    (folder / "none.csv").write_text("time_s,bandwidth_mbps\n0,0.001\n1,0.001\n")
    pi4 = load_profile("pi4_ncnn_1t")
    macs, shares = {kind: SLOWER * ns for kind, ns in pi4.ns_per_mac.items()}, FORMAT.items()
    prices = {
        name: FormatPrice(ns_per_mac={k: x * ns for k, ns in macs.items()}, overhead_us=0.0) for name, x in shares
    }
    device = msgspec.structs.replace(pi4, name="slow", ns_per_mac=macs, number_formats=prices)
    save_profile(device, folder / "slow.json")
    return folder


def searched(folder, technique, number_format):
    config = SearchConfig(
        base=f"{folder}/mixed.py:mixed", weights="factory", allow_chance=True, image_size=16, K=1, N=2, rtt_ms=1e6,
        device=f"{folder}/slow.json", trace=f"{folder}/none.csv", techniques=(technique,), methods=("tree",),
        formats=("f32", number_format), image_codes=(), max_loss=100.0, budget=60, finetune_steps=0, executor="serial",
        workers=1,
    )  # fmt: skip
    before = torch.get_num_threads()
    found = search(config, folder / technique, cache=folder / "cache")
    torch.set_num_threads(before)
    return found


def bundle_of(run, folder):
    with pytest.MonkeyPatch.context() as patch:
        words = ["compile", str(run), "--tune", "none", "--out", str(folder / f"{run.name}-bundle"),
                 "--cache", str(folder / "compiled")]  # fmt: skip
        patch.setattr(sys, "argv", ["nas", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return folder / f"{run.name}-bundle"


def as_torch(found, nodes, x):
    """What torch answers along a path, every block rounded as its format does it."""
    with torch.no_grad():
        for node in nodes:
            module = read_program(found.folder / "blocks" / f"{node.block}.pt2").module()
            with Numerics(node.number_format, entering=x):
                x = module(x)
    return x.numpy()[0]


@pytest.mark.parametrize(
    ("technique", "number_format", "off"),
    [("inner", "int8", 1e-5), ("heads", "int8", 1e-5), ("skip", "int8", 1e-5), ("low_rank", "int8-dot", 0.02)],
)
def test_a_tree_with_blocks_replaced_and_number_formats_runs_as_torch_does(folder, technique, number_format, off):
    if number_format == "int8-dot" and not {"vnni", "sdot"} & set(host().dot):
        pytest.skip("this processor has no 8-bit dot products: run it on one with AVX512-VNNI")
    found = searched(folder, technique, number_format)
    (leaf,) = found.tree.leaves()
    nodes = found.tree.path(leaf.id)
    assert leaf.handover is None
    assert technique in {action.technique for node in nodes for action in node.actions}
    assert number_format in {node.number_format for node in nodes}
    picture = np.random.default_rng(3).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with Session.open(bundle_of(found.folder, folder), mode="only-device") as session:
        answer = session.infer(picture)
        x = torch.from_numpy(session.device.entering(picture)[0])
    wanted = as_torch(found, nodes, x)
    assert answer.nodes == tuple(node.id for node in nodes)
    np.testing.assert_allclose(answer.output, wanted, rtol=0, atol=off * float(np.abs(wanted).max()))
