"""Hand-overs with fewer bits: what they cost in accuracy, measured through the codec that devices use."""

import numpy as np
import pytest
import torch
from coding import coded_table, coding_aware
from torch import nn

from modeltree.errors import ConfigError
from runtime.wire.frames import encode
from transforms.graph.lifting import export
from transforms.graph.network import analyse

IMAGES, CLASSES = 24, 5


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 36, CLASSES)
    )  # fmt: skip
    return analyse(export(net.eval(), (3, 12, 12)))


@pytest.fixture(scope="module")
def batches(network):
    """Labels are what the network itself says, so that coding alone decides the accuracy."""
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((IMAGES, 3, 12, 12), np.float32))
    with torch.no_grad():
        labels = network.between(0, len(network.spec.segments))(x).argmax(1).numpy()
    return [(x[:16], labels[:16]), (x[16:], labels[16:])]


def test_without_coding_nothing_is_lost_and_fewer_bits_are_fewer_bytes(network, batches):
    places = range(len(network.spec.segments))
    rows = list(coded_table(network, batches, places=places, bits=[2, 8, 32]))
    assert [(row.place, row.bits) for row in rows] == [(place, width) for place in places for width in (2, 8, 32)]
    for two, eight, whole in zip(rows[0::3], rows[1::3], rows[2::3], strict=True):
        assert (whole.accuracy, whole.agreement, whole.images) == (100.0, 100.0, IMAGES)
        assert two.frame_bytes < eight.frame_bytes < whole.frame_bytes
        assert eight.accuracy >= 90.0
        assert eight.fewer > 3


def test_bytes_are_the_mean_of_the_frames_that_would_cross(network, batches):
    row = next(coded_table(network, batches, places=[0], bits=[4]))
    sizes = [len(encode(image[None], 4)) for x, _ in batches for image in x.numpy()]
    assert row.frame_bytes == pytest.approx(np.mean(sizes))
    assert row.raw_bytes == 4 * 3 * 12 * 12


@pytest.mark.parametrize(("places", "bits", "match"), [([99], [8], "place 99"), ([0], [17], "bits is 17")])
def test_what_no_device_could_send_is_refused(network, batches, places, bits, match):
    with pytest.raises(ConfigError, match=match):
        list(coded_table(network, batches, places=places, bits=bits))


def test_no_images_are_refused(network):
    with pytest.raises(ConfigError, match="0 images"):
        list(coded_table(network, [], places=[0], bits=[8]))


class Answers:
    """Images in one way, and what the network answers to them."""

    outputs = ()

    def __init__(self, network, count=256):
        self.images = torch.from_numpy(np.random.default_rng(1).standard_normal((count, 3, 12, 12), np.float32))
        with torch.no_grad():
            self.logits = network.between(0, len(network.spec.segments))(self.images)[None]

    def __len__(self):
        return len(self.images)

    def take(self, positions, way):
        return self.images[positions], self.logits[way, positions]


def test_a_part_trained_to_be_coded_keeps_more_answers_at_one_bit(network):
    before = {name: value.clone() for name, value in network.graph.state_dict().items()}
    examples = Answers(network)
    front = coding_aware(network, 1, 1, examples, steps=400, lr=3e-3)
    judged = [(examples.images, examples.logits[0].argmax(1).numpy())]
    plain, tuned = (
        next(coded_table(network, judged, places=[1], bits=[1], fronts=fronts)) for fronts in ({}, {(1, 1): front})
    )
    assert tuned.agreement > plain.agreement + 5
    assert all(torch.equal(value, before[name]) for name, value in network.graph.state_dict().items())
