"""Joint fine-tuning of all paths: what is shared, what is frozen, and what it brings."""

import copy

import numpy as np
import pytest
import torch
from networks import build, images, made_predictor, scenario, tiny

from nas.compression.library import Choice
from nas.finalise.finetune import FinetuneConfig, Forest, distil_whole_, finetune_, forest_seen
from nas.treesearch.problem import Plan
from nas.treesearch.space import build_space
from transforms import compose

CUTS = (0, 2, 5)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    library = build(tmp_path_factory.mktemp("library"), names=("svd", "gap", "prune"))
    return library, build_space(tiny(), library, made_predictor(library), scenario(), CUTS)


@pytest.fixture
def paths(made):
    """Stay unchanged, then shrink (a) or hand over (b); shrink at once, then hand over inside (c) or at the cut (d)."""
    _, space = made
    first, second = space.problem.blocks
    kept = Plan(first.places, (0, 0))
    pruned = Plan(first.places, (0, space.choices[1].index(Choice("prune", 0.25))))
    shrunk = Plan(second.places, (space.choices[2].index(Choice("prune", 0.5)), 0, 0))
    return {
        "a": (kept, shrunk),
        "b": (kept, Plan(0, ())),
        "c": (pruned, Plan(1, (0,))),
        "d": (pruned, Plan(0, ())),
    }


@pytest.fixture
def forest(made, paths):
    library, space = made
    return Forest(tiny(), space, library, dict.fromkeys(paths.values(), 0.25))


PIXELS, _ = images(128)


class Taught:
    """The images as they are, or mirrored, and the base network's logits; remembers what was taken."""

    outputs = ()

    def __init__(self):
        self.ways = [PIXELS, PIXELS.flip(3)]
        with torch.no_grad():
            self.logits = torch.stack([tiny().graph(images) for images in self.ways])
        self.taken = []

    def __len__(self):
        return len(PIXELS)

    def take(self, positions, way):
        self.taken.append((positions.tolist(), way))
        return self.ways[way][positions], self.logits[way, positions]


def divergence(forest):
    """Mean divergence from the base network over the paths that can learn, on the training images."""
    with torch.no_grad():
        target = torch.log_softmax(tiny().graph(PIXELS), 1)
        return sum(
            float(torch.nn.functional.kl_div(torch.log_softmax(y, 1), target, log_target=True, reduction="batchmean"))
            for _, y in forest.logits(PIXELS)
        )


def weights(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def trained(forest, **config):
    rest = {"checkpoint": config.pop("checkpoint", None), "progress": config.pop("progress", lambda *_: None)}
    examples = config.pop("examples", None) or Taught()
    finetune_(forest, examples, FinetuneConfig(batch_size=32, lr=5e-4, **config), **rest)
    return forest


def test_shared_first_parts_are_one_module(forest, paths):
    assert forest.node(paths["a"][:1]) is forest.node(paths["b"][:1])
    assert forest.node(paths["c"][:1]) is forest.node(paths["d"][:1])
    assert forest.node(paths["a"][:1]) is not forest.node(paths["c"][:1])
    assert len(forest.device) == 6  # two first parts and an end for each path
    assert set(forest.cloud) == {(2, 0), (3, 0)}


def test_every_path_computes_what_its_composition_does(forest, paths, made):
    library, space = made
    found = dict(forest.logits(PIXELS))
    for path in paths.values():
        variants = library.variants(tiny(), space.variants(path))
        expected = PIXELS
        for start, stop in ((0, 2), (2, 5)):
            own = {u: v for u, v in variants.items() if (u < 2) == (start == 0)}
            expected = compose(tiny(), start, stop, own)(expected)
        assert torch.allclose(found[path], expected, atol=1e-4)


def test_the_base_network_and_what_stands_before_any_variant_stay_bit_for_bit(forest, paths):
    base, kept = weights(tiny().graph), weights(forest.node(paths["a"][:1]))
    rests = {end: weights(module) for end, module in forest.cloud.items()}
    pruned = weights(forest.node(paths["c"][:1]))
    trained(forest, steps=5)
    assert same(weights(tiny().graph), base)
    assert same(weights(forest.node(paths["a"][:1])), kept)
    assert all(same(weights(forest.cloud[end]), rest) for end, rest in rests.items())
    assert not same(weights(forest.node(paths["c"][:1])), pruned)
    assert all(p.grad is None for p in tiny().graph.parameters())


def test_blocks_behind_a_variant_learn_though_nothing_in_them_was_changed(forest, paths):
    before = weights(forest.node(paths["c"]))
    trained(forest, steps=5)
    assert not same(weights(forest.node(paths["c"])), before)


def test_fine_tuning_brings_the_paths_nearer_to_the_base_network(forest):
    before = divergence(forest)
    trained(forest, steps=100)
    assert divergence(forest) < 0.7 * before
    assert not any(module.training for module in forest.device.modules())


def test_no_steps_change_nothing(forest):
    before = weights(forest.device)
    trained(forest, steps=0)
    assert same(weights(forest.device), before)


def test_paths_that_change_nothing_need_no_training(made, paths):
    library, space = made
    forest = Forest(tiny(), space, library, {paths["b"]: 1.0})
    before = weights(forest.device)
    trained(forest, steps=3)
    assert same(weights(forest.device), before)


def test_every_step_takes_other_lessons_none_twice_and_both_ways_come_up(forest):
    examples = Taught()
    trained(forest, steps=12, examples=examples)
    assert len(examples.taken) == 12
    assert all(len(set(positions)) == 32 for positions, _ in examples.taken)
    assert len({tuple(positions) for positions, _ in examples.taken}) == 12
    assert {way for _, way in examples.taken} == {0, 1}


@pytest.mark.parametrize("stop", [49, 50, 73])
def test_an_interrupted_training_ends_with_the_same_weights(forest, tmp_path, stop):
    twin = copy.deepcopy(forest)
    whole = trained(copy.deepcopy(forest), steps=80)

    def stops(done, total, text):
        if done == stop + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(forest, steps=80, checkpoint=tmp_path / "state.pt", progress=stops)
    assert (tmp_path / "state.pt").exists() == (stop >= 50)
    steps = []
    trained(twin, steps=80, checkpoint=tmp_path / "state.pt", progress=lambda n, *_: steps.append(n))
    assert steps[0] == (51 if stop >= 50 else 1)
    assert same(weights(twin.device), weights(whole.device))
    finished = trained(copy.deepcopy(forest), steps=80, checkpoint=tmp_path / "state.pt")
    assert same(weights(finished.device), weights(whole.device))


def test_accuracy_counts_right_answers_over_all_batches(forest, paths):
    with torch.no_grad():
        labels = forest_logits(forest, paths["a"]).argmax(1).numpy()
    labels[:32] = (labels[:32] + 1) % 5
    batches = [(PIXELS[:100], labels[:100]), (PIXELS[100:], labels[100:])]
    assert forest_seen(forest, batches)[paths["a"]] == (pytest.approx(75.0), 1.0, 0.0)


def forest_logits(forest, path):
    return dict(forest.logits(PIXELS))[path]


def test_a_whole_network_is_distilled_in_place():
    made = copy.deepcopy(tiny().graph)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.2)

    def apart():
        with torch.no_grad():
            return float((torch.log_softmax(made(PIXELS), 1) - torch.log_softmax(tiny().graph(PIXELS), 1)).abs().mean())

    before = apart()
    config = FinetuneConfig(steps=30, batch_size=32, lr=5e-4)
    assert distil_whole_(made, Taught(), config) is made
    assert apart() < 0.7 * before
    assert np.isfinite(before)
