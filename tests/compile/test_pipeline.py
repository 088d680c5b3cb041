"""The compiler as a whole: what it refuses, leaves behind, and promises about its bytes."""

import pytest
import torch
from operator_cases import Of
from operators import CASES
from stage_programs import TARGET
from torch import nn

from compile.machine_code.elf import read_elf
from compile.pipeline import PHASES, compile_block
from compile.targets import TARGETS, host
from compile.tuning import TuningCache
from modeltree.errors import ConfigError, GraphError
from transforms import export

NETWORK = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 5))


@pytest.fixture(scope="module")
def program():
    return export(NETWORK, (3, 6, 6))


def on_lines(*sizes):
    """Bytes of constants that each begin on a cache line of 64 bytes."""
    return sum(-(-size // 64) * 64 for size in sizes)


def test_a_compiled_block_knows_its_shapes_and_costs(program):
    block = compile_block(program, TARGETS["pi4"], batch=2)
    assert (block.input_shape, block.output_shape) == ((2, 3, 6, 6), (2, 5))
    assert block.macs == 2 * (36 * 8 * 27 + 72 * 5)
    beyond = 3  # the last of the dense layer's vectors of 4 reads one weight and what is behind it
    assert block.weight_bytes == on_lines(4 * 8 * 27, 4 * 8, 4 * (72 * 5 + beyond), 4 * 8)
    pooled, every_map = 4 * 9 * 8, 4 * (36 * 4 + 36 * 8 + 9 * 8 + 8)  # an image; 3 channels are held as 4, 5 as 8
    assert 2 * pooled <= block.workspace_bytes <= 2 * every_map
    assert [name for name in block.kernels if name.startswith("conv")] == ["conv3x3", "conv1x1"]


def test_fewer_bytes_a_weight_make_a_smaller_library(program):
    """Kernels 8 x 27 and 72 x 5; biases (of 5 outputs as of 8), and the scales of int8, stay float32."""
    sizes = {
        weights: compile_block(program, TARGETS["pi4"], weights=weights).weight_bytes
        for weights in ("f32", "bf16", "int8")
    }
    biases = [4 * 8, 4 * 8]
    assert sizes == {
        "f32": on_lines(4 * 8 * 27, 4 * (72 * 5 + 3), *biases),
        "bf16": on_lines(2 * 8 * 27, 2 * (72 * 5 + 3), *biases),
        "int8": on_lines(8 * 27, (72 * 5 + 3), *biases, *biases),
    }


def test_a_dump_has_a_file_for_every_phase(program, tmp_path):
    compile_block(program, TARGETS["pi4"], dump=tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [f"{number:02}-{name}.txt" for number, (name, _) in enumerate(PHASES)]
    assert all(path.stat().st_size for path in tmp_path.iterdir())
    assert "conv3x3" in (tmp_path / "07-schedule.txt").read_text()


def test_a_dump_changes_nothing_about_the_library(program, tmp_path):
    assert (
        compile_block(program, TARGETS["pi4"], dump=tmp_path).library == compile_block(program, TARGETS["pi4"]).library
    )


@pytest.mark.parametrize("name", ["chain", "concatenation of odd parts", "attention", "30 groups of 2 and 3"])
def test_the_same_program_and_cache_give_the_same_bytes(name, program, tmp_path):
    one = program if name == "chain" else export(CASES[name].network(name), CASES[name].shape)
    cache = TuningCache(tmp_path / "tiles.json")
    first = compile_block(one, host(), cache=cache).library
    cache.save()
    assert compile_block(one, host(), cache=TuningCache(tmp_path / "tiles.json")).library == first
    assert read_elf(first).machine == host().architecture


def test_an_unknown_weight_format_lists_the_known(program):
    with pytest.raises(ConfigError, match=r"'int4'.*bf16.*f32.*int8"):
        compile_block(program, TARGET, weights="int4")


@pytest.mark.parametrize("weights", ["bf16-dot", "int8-dot"])
def test_a_target_without_dot_products_says_so(program, weights):
    with pytest.raises(ConfigError, match="no dot products"):
        compile_block(program, TARGET, weights=weights)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_nothing_is_refused(program, batch):
    with pytest.raises(ConfigError, match="at least 1"):
        compile_block(program, TARGET, batch=batch)


def test_what_is_not_known_to_be_right_is_refused_by_the_name_of_its_layer():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Of(lambda x: torch.special.i0(x)))
    with pytest.raises(GraphError, match=r"layer 1: .*i0.*write it with other operators"):
        compile_block(export(model, (3, 5, 5)), TARGET)
