"""Exported programs as files: what is written is read again, and nothing that a file says is run."""

import io
import json
import random
import shutil
import sys
from collections import OrderedDict

import hostile_programs
import pytest
import torch
from forked_run import FIRST, compiled, tree
from torch import nn

from compile.bundle import Wanted, compile_run
from compile.program_file import program_bytes, read_program
from compile.targets import host
from modeltree.errors import FormatError, NasError
from modeltree.tree import decode_tree, encode_tree

pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")
UNPICKLED: list[str] = []


def _watch(event, args):
    if event == "pickle.find_class":
        UNPICKLED.append(str(args))


sys.addaudithook(_watch)


def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()


def exported(model):
    return torch.export.export(model, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("n")},))


def test_a_program_answers_as_before_it_was_written(tmp_path):
    model, x = network(), torch.randn(3, 3, 8, 8)
    (tmp_path / "a.pt2").write_bytes(program_bytes(exported(model)))
    torch.testing.assert_close(read_program(tmp_path / "a.pt2").module()(x), model(x), rtol=0, atol=0)


def test_what_torch_itself_wrote_is_read(tmp_path):
    model, x, buffer = network(), torch.randn(1, 3, 8, 8), io.BytesIO()
    torch.export.save(exported(model), buffer)
    torch.testing.assert_close(read_program(buffer.getvalue()).module()(x), model(x), rtol=0, atol=0)


def test_a_program_is_written_without_the_inputs_and_source_lines_that_made_it():
    parts = hostile_programs.members(program_bytes(exported(network())))
    assert parts["data/sample_inputs/model.pt"] == b""


def test_modules_with_names_that_are_no_identifiers_are_read(tmp_path):
    torch.manual_seed(0)
    inner = nn.Sequential(OrderedDict({"block1-0": nn.Conv2d(3, 4, 3), "second one": nn.BatchNorm2d(4)}))
    model, x = nn.Sequential(OrderedDict({"a:b+c": inner, "0": nn.Flatten()})).eval(), torch.randn(2, 3, 8, 8)
    program = read_program(program_bytes(exported(model)))
    torch.testing.assert_close(program.module()(x), model(x), rtol=0, atol=0)
    (convolution,) = [node for node in program.graph.nodes if "conv2d" in str(node.target)]
    assert "a:b+c.block1-0" in str(convolution.meta["nn_module_stack"])


@pytest.mark.parametrize("name", ['a"b', "a'b", "a\\b", "a\nb", "a(b)", "ä", "a..b", ""])
def test_a_parameters_name_that_could_end_a_text_in_source_code_is_refused(name):
    parts = hostile_programs.members(program_bytes(exported(network())))
    text = parts["models/model.json"].decode()
    assert '"0.weight"' in text
    parts["models/model.json"] = text.replace('"0.weight"', json.dumps(name)).encode()
    with pytest.raises(FormatError, match="parameter named"):
        read_program(hostile_programs.archive(parts))


def test_tied_weights_stay_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4, bias=False)
            self.b = nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    program = read_program(program_bytes(torch.export.export(Tied(), (torch.zeros(1, 4),))))
    assert len({tensor.data_ptr() for tensor in program.state_dict.values()}) == 1


@pytest.fixture(scope="module")
def trap(tmp_path_factory):
    return tmp_path_factory.mktemp("trap") / "sprung"


def test_the_trap_springs_in_a_reader_that_unpickles(tmp_path):
    trap = tmp_path / "sprung"
    armed = hostile_programs.armed(trap)
    with pytest.raises(Exception):  # noqa: B017 - torch's own reader does not get as far as a program
        torch.export.load(io.BytesIO(armed["sample inputs"]))
    assert trap.exists()


KINDS = [
    "sample inputs", "a pickled weight", "a pickled constant", "an opaque object", "a custom object",
    "weights of the old form", "a size that is a call", "a guard", "a name that is code", "os.system", "torch.load",
    "operator.attrgetter", "a file as a tensor", "a graph's own objects", "a container of another kind",
]  # fmt: skip
LEFT_OUT = {"sample inputs", "weights of the old form", "a guard"}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_a_hostile_program_is_run(kind, trap):
    before = len(UNPICKLED)
    outcome = hostile_programs.outcome(hostile_programs.armed(trap)[kind])
    assert outcome == "read" if kind in LEFT_OUT else outcome.startswith("refused: ")
    assert not trap.exists()
    assert UNPICKLED[before:] == []


def test_a_guard_is_not_run_by_the_module_either(trap):
    read_program(hostile_programs.armed(trap)["a guard"]).module()(torch.zeros(2, 3, 4, 4))
    assert not trap.exists()


def test_every_armed_kind_is_tried(trap):
    assert sorted(hostile_programs.armed(trap)) == sorted(KINDS)


@pytest.mark.parametrize("kind", list(hostile_programs.bloated()))
def test_a_small_file_cannot_ask_for_much_memory(kind):
    assert hostile_programs.outcome(hostile_programs.bloated()[kind]).startswith("refused: ")


def test_a_damaged_program_is_read_or_refused_with_a_reason():
    rng, data, before = random.Random(0), hostile_programs.sound(), len(UNPICKLED)
    outcomes = [hostile_programs.outcome(hostile_programs.damaged(rng, data)) for _ in range(150)]
    assert sum(outcome != "read" for outcome in outcomes) > 75
    assert UNPICKLED[before:] == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    compiled(folder)
    return folder / "run"


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "..", "a/b", "1" * 19, "g" * 20, "1" * 19 + "\n"]
)
def test_a_tree_whose_block_is_no_hash_is_refused(name):
    text = encode_tree(tree()).decode().replace(FIRST, name.replace("\n", "\\n"))
    with pytest.raises(FormatError, match=r"tree\.json is not a model tree"):
        decode_tree(text.encode(), "tree.json")


def test_a_run_with_an_armed_block_is_not_compiled(run, tmp_path, trap):
    hostile = shutil.copytree(run, tmp_path / "run")
    for kind, data in hostile_programs.armed(trap).items():
        (hostile / "blocks" / f"{FIRST}.pt2").write_bytes(data)
        with pytest.raises(NasError):
            compile_run(hostile, tmp_path / "bundle", Wanted(targets=[host()]))
        assert not trap.exists(), kind
        assert not (tmp_path / "bundle").exists(), kind


def test_a_block_that_is_a_link_out_of_the_run_is_not_followed(run, tmp_path):
    hostile = shutil.copytree(run, tmp_path / "run")
    block = hostile / "blocks" / f"{FIRST}.pt2"
    block.rename(tmp_path / "elsewhere.pt2")
    block.symlink_to(tmp_path / "elsewhere.pt2")
    with pytest.raises(FormatError, match="leads out of"):
        compile_run(hostile, tmp_path / "bundle", Wanted(targets=[host()]))
