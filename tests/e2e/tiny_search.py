"""A whole search small enough for a test: 16x16 digits, a network with a sum, a concatenation and a depthwise layer."""

import json
import sys
from pathlib import Path

import msgspec
import torch
from torch import nn

from modeltree.profiles import load_profile, save_profile
from nas.bases import build, save_weights
from nas.config import SearchConfig
from nas.data import load_dataset
from nas.search import search

NETWORK = """
import torch
from torch import nn


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.one = nn.Conv2d(12, 12, 3, padding=1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.pointwise = nn.Conv2d(12, 16, 1)
        self.left, self.right = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.hidden, self.last = nn.Linear(16 * 16, 32), nn.Linear(32, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.max_pool2d(torch.relu(x + self.one(x)), 2)
        x = torch.relu(self.pointwise(torch.relu(self.depthwise(x))))
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        x = torch.max_pool2d(x, 2)
        return self.last(torch.relu(self.hidden(torch.flatten(x, 1))))


def mixed():
    return Mixed()
"""


SLOWER = 600


PLAIN = """
from torch import nn


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(),
        nn.Conv2d(128, 64, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 16, 10),
    )
"""
"""A network whose early maps tell a digit, so that leaving early is worth it."""


def given(folder: Path, factory: str = "mixed") -> dict[str, str]:
    """Write a network, weights that a few steps of training gave, a slow device, and a link; returns their options.

    The link's two types lie far apart and the device is slow, so that compressing and handing over are both worth it.
    """
    (folder / f"{factory}.py").write_text({"mixed": NETWORK, "plain": PLAIN}[factory])
    base, weights = f"{folder / factory}.py:{factory}", folder / f"{factory}.safetensors"
    data = load_dataset("digits", image_size=16)
    model: nn.Module = build(base, num_classes=10, image_size=16)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(80):
        chosen = torch.randint(0, len(data.fit), (64,), generator=rng).numpy()
        loss = nn.functional.cross_entropy(
            model(data.normalise(data.fit.images[chosen])), torch.from_numpy(data.fit.labels[chosen])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_weights(model, weights)
    pi4 = load_profile("pi4")
    slow = {kind: SLOWER * cost for kind, cost in pi4.ns_per_mac.items()}
    save_profile(msgspec.structs.replace(pi4, name="slow", ns_per_mac=slow), folder / "slow.json")
    rows = "".join(f"{t},{mbps}\n" for t, mbps in enumerate([0.03, 0.03, 0.3, 0.3]))
    (folder / "steps.csv").write_text("time_s,bandwidth_mbps\n" + rows)
    return {
        "base": base,
        "weights": str(weights),
        "device": str(folder / "slow.json"),
        "trace": str(folder / "steps.csv"),
    }


def config(options: dict[str, str]) -> SearchConfig:
    """What `given` wrote, searched with little."""
    return SearchConfig(
        image_codes=(), **options, K=2, N=2, image_size=16, rtt_ms=0.2, cloud="cloud_gpu",
        techniques=("svd", "prune"), budget=200, finetune_steps=60, max_loss=2.0, executor="serial", workers=1,
    )  # fmt: skip


if __name__ == "__main__":  # python tiny_search.py OPTIONS OUT CACHE
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    search(config(json.loads(sys.argv[1])), Path(sys.argv[2]), cache=Path(sys.argv[3]), resume=True)
