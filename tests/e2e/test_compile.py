"""Networks, whole and under every technique, through the compiler; a searched tree through `nas compile`."""

import sys

import numpy as np
import pytest
import tiny_search
import torch
from small_networks import INPUT, NETWORKS, Transformer, model, network, of, run

from compile.machine_code.elf import read_elf
from compile.pipeline import compile_block
from compile.program_file import read_program
from compile.targets import TARGETS, host
from compile.verify import verify_block
from modeltree.errors import NotApplicable
from nas.bases import BASES, build
from nas.cli import main
from nas.search import search
from runtime.execution.bundle import Bundle
from runtime.execution.library import Library
from transforms import TECHNIQUES, compose, export

IMAGE = (3, 32, 32)


@pytest.fixture(autouse=True)
def first_tile(monkeypatch):
    """Which tile is taken does not matter here; timing all of them would take minutes."""
    monkeypatch.setattr("compile.tuning.timed", lambda kernel, target: dict.fromkeys(kernel.tiles, 0.0))


def verified(program, folder, *, target=None, weights="f32"):
    """Compile, and compare with torch."""
    path = folder / f"{len(list(folder.iterdir()))}.so"  # a loaded library must not be written over
    block = compile_block(program, target or host(), weights=weights)
    path.write_bytes(block.library)
    verify_block(program, path, weights=weights)
    return block


@pytest.mark.parametrize("name", NETWORKS)
def test_small_networks_agree_with_torch(name, tmp_path):
    verified(export(model(name), INPUT), tmp_path)


def plugged(net, technique):
    """The network with a technique on the first layer that takes it, for every rate."""
    for rate in technique.rates:
        for unit in net.units:
            try:
                yield compose(net, 0, len(net.spec.places) - 1, {unit.index: technique.apply(unit, rate)})
            except NotApplicable:
                continue
            break


@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=TECHNIQUES)
def test_small_networks_under_every_technique_agree_with_torch(technique, tmp_path):
    networks = [of(Transformer())] if technique.name == "heads" else map(network, NETWORKS)
    whole = [part for net in networks for part in plugged(net, technique)]
    assert whole, "no layer of any network takes the technique"
    for part in whole[:3]:
        verified(export(part, INPUT), tmp_path)


@pytest.mark.parametrize("base", BASES)
def test_base_networks_agree_with_torch(base, tmp_path):
    program = export(build(base, num_classes=10, image_size=32), IMAGE)
    verified(program, tmp_path)


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_narrow_weights_of_a_whole_network_are_within_their_tolerance(weights, tmp_path):
    verified(export(model("chain"), INPUT), tmp_path, weights=weights)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_network_compiles_and_links_for_every_target(target):
    block = compile_block(export(model("mixed"), INPUT), target)
    found = read_elf(block.library)
    assert found.machine == target.architecture
    assert (block.input_shape, block.output_shape) == ((1, *INPUT), (1, 5))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A small tree, and the bundle that the command line makes of it for this machine."""
    folder, threads = tmp_path_factory.mktemp("compiled"), torch.get_num_threads()
    found = search(tiny_search.config(tiny_search.given(folder)), folder / "run", cache=folder / "cache")
    torch.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compile.tuning.timed", lambda kernel, target: dict.fromkeys(kernel.tiles, 0.0))
        patch.setenv("NAS_CACHE", str(folder / "cache"))
        words = ["compile", str(folder / "run"), "--target", "host", "--batch", "1", "--batch", "3"]
        patch.setattr(sys, "argv", ["nas", *words, "--out", str(folder / "bundle")])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return found, Bundle.open(folder / "bundle", "host")


@pytest.mark.parametrize("batch", [1, 3])
def test_libraries_chained_along_every_path_of_a_tree_are_the_torch_blocks_chained(searched, batch):
    found, bundle = searched
    leaves = found.tree.leaves()
    assert len(leaves) >= 2
    for leaf in leaves:
        names = [node.block for node in found.tree.path(leaf.id) if node.block]
        names += [leaf.handover.block] if leaf.handover is not None else []
        x = np.random.default_rng(leaf.id).standard_normal((batch, 3, 16, 16), np.float32)
        wanted = torch.from_numpy(x)
        for name in names:
            entry = bundle.block(name)
            library = Library(
                bundle.library_path(name, target="host", batch=batch), shape_in=(batch, *entry.in_shape),
                shape_out=(batch, *entry.out_shape), threads=2,
            )  # fmt: skip
            x = library.run(x)
            wanted = run(read_program(found.folder / "blocks" / f"{name}.pt2").module(), wanted)
        np.testing.assert_allclose(x, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
        assert x.shape == (batch, 10)
