"""Blocks that were met get the layers that the search has exported."""

import pytest
import torch
from torch import nn

from modeltree.errors import ConfigError
from modeltree.met import Met, Timed
from nas.refit.runs import with_layers
from nas.training.block_files import write_block


@pytest.fixture
def run(tmp_path):
    """A run's folder with one block, and the block's name."""
    torch.manual_seed(0)
    folder = tmp_path / "run" / "blocks"
    folder.mkdir(parents=True)
    block = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    return folder.parent, write_block(block, (3, 16, 16), folder)


def met(*names):
    timed = Timed(predicted_ms=1.0, ms=2.0, count=3)
    return Met(
        kind="field", device="pi4", cloud="cloud_gpu", origin="a test", blocks=dict.fromkeys(names, timed),
        rests={f"{name} 8 bits": timed for name in names}, encodings=(),
    )  # fmt: skip


def test_layers_are_those_of_the_exported_block_on_both_sides(run):
    folder, name = run
    told = with_layers(met(name, "f" * 20), [folder])
    found = told.blocks[name].layers
    assert [(layer.op, layer.kind, layer.stride) for layer in found if layer.dense_macs] == [
        ("conv", "conv3x3", (2, 2)), ("conv", "conv1x1", (1, 1)),
    ]  # fmt: skip
    assert [layer.dense_macs for layer in found if layer.dense_macs] == [9 * 3 * 8 * 64, 8 * 4 * 64]
    assert told.rests[f"{name} 8 bits"].layers == found
    assert told.blocks["f" * 20].layers == ()


def test_a_folder_that_is_no_search_or_another_one_is_refused(run, tmp_path):
    folder, _ = run
    with pytest.raises(ConfigError, match="holds no blocks/"):
        with_layers(met("a" * 20), [tmp_path])
    with pytest.raises(ConfigError, match="none of the blocks that were met"):
        with_layers(met("a" * 20), [folder])
