"""Lessons: the same altered images whenever they are asked for, and what the base network says to just these."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import CLASSES, INPUT, tiny

import nas.training.teacher
from modeltree.errors import DataError
from nas.data import Dataset, ImageSet, load_dataset
from nas.training.base_network import Prepared
from nas.training.teacher import distillation_set

COUNT, SIZE = 40, INPUT[1]
BY = SIZE // 8  # the furthest an image is shifted


def quiet(done, total, text):
    """No one listens."""


def prepared(*, flip=False, model=None, count=COUNT):
    """Random images, of which none is its own mirror image."""
    rng = np.random.default_rng(0)
    part = ImageSet(
        images=rng.integers(1, 256, (count, *INPUT), dtype=np.uint8), labels=rng.integers(0, CLASSES, count)
    )
    dataset = Dataset(
        name="x", classes=tuple("abcde"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3),
        fit=part, search=part, test=part, flip=flip,
    )  # fmt: skip
    network = tiny() if model is None else dataclasses.replace(tiny(), graph=model)
    return Prepared(dataset=dataset, model=network.graph, network=network, program=Path("nowhere"), key=("a", "b"))


class Silent(torch.nn.Module):
    """A network that must not be asked."""

    def forward(self, images):
        raise AssertionError("the network was asked again")


class Broken(torch.nn.Module):
    """A network whose answers are no numbers."""

    def forward(self, images):
        return torch.full((len(images), CLASSES), torch.nan)


def everything(examples):
    """Images and logits of all examples, both ways."""
    return [part for way in (0, 1) for part in examples.take(np.arange(len(examples)), way)]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_images_and_logits_are_the_same_each_time(tmp_path):
    given = prepared(flip=True)
    examples, again = (distillation_set(given, tmp_path / name, 0, quiet) for name in ("one", "two"))
    first = everything(examples)
    torch.rand(3)
    assert same(everything(examples), first)
    assert same(everything(again), first)


def test_a_lesson_does_not_depend_on_what_it_is_taken_with(tmp_path):
    examples = distillation_set(prepared(flip=True), tmp_path, 0, quiet)
    positions = np.array([17, 3, 39])
    images, logits, *_ = everything(examples)
    some = examples.take(positions, 0)
    assert same(some, (images[positions], logits[positions]))


def test_the_two_ways_and_another_seed_give_other_images(tmp_path):
    examples, other = (distillation_set(prepared(flip=True), tmp_path / str(seed), seed, quiet) for seed in (0, 1))
    here, _, there, _ = everything(examples)
    elsewhere, *_ = everything(other)
    for one in (there, elsewhere):
        apart = (here != one).flatten(1).any(1)
        assert apart.float().mean() > 0.8  # one in 50 is altered in the same way by chance


@pytest.mark.parametrize("flip", [False, True])
def test_logits_are_what_the_network_says_to_these_very_images(tmp_path, flip):
    given = prepared(flip=flip)
    images, logits, others, theirs = everything(distillation_set(given, tmp_path, 0, quiet))
    with torch.no_grad():
        assert torch.allclose(given.model(images), logits, atol=1e-5)
        assert torch.allclose(given.model(others), theirs, atol=1e-5)
    assert not torch.allclose(logits, theirs, atol=1e-3)


def shifted(dataset, image):
    """Every image that shifting by up to an eighth can give, black behind."""
    padded = np.pad(image, ((0, 0), (BY, BY), (BY, BY)))
    whole = range(2 * BY + 1)
    return dataset.normalise(np.stack([padded[:, y : y + SIZE, x : x + SIZE] for y in whole for x in whole]))


def mirrored(given, examples):
    """Per example, whether it is a shifted mirror image; one that is neither that nor a shifted image is an error."""
    found = []
    for way in (0, 1):
        images, _ = examples.take(np.arange(len(examples)), way)
        for image, index in zip(images, examples.chosen, strict=True):
            original = given.dataset.fit.images[index]
            plain, turned = (
                bool((shifted(given.dataset, pixels) == image).flatten(1).all(1).any())
                for pixels in (original, original[..., ::-1])
            )
            assert plain != turned
            found.append(turned)
    return found


def test_images_are_shifted_and_never_mirrored_where_mirroring_changes_the_label(tmp_path):
    given = prepared(flip=False)
    assert not any(mirrored(given, distillation_set(given, tmp_path, 0, quiet)))
    assert not load_dataset("digits", image_size=16).flip


def test_elsewhere_about_half_is_mirrored(tmp_path):
    given = prepared(flip=True)
    assert 0.3 < np.mean(mirrored(given, distillation_set(given, tmp_path, 0, quiet))) < 0.7


def test_the_network_is_asked_once_and_its_answers_are_kept(tmp_path):
    given, told = prepared(), []
    examples = distillation_set(given, tmp_path, 0, lambda done, total, text: told.append((done, total)))
    assert told == [(COUNT, 2 * COUNT), (2 * COUNT, 2 * COUNT)]
    (kept,) = tmp_path.iterdir()
    before = kept.stat().st_mtime_ns
    again = distillation_set(
        dataclasses.replace(given, network=dataclasses.replace(tiny(), graph=Silent())),
        tmp_path,
        0,
        lambda *_: told.append(_),
    )
    assert same(everything(again), everything(examples))
    assert len(told) == 2
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("spoil", ["truncated", "empty", "garbage", "another shape", "another type"])
def test_a_file_that_holds_something_else_is_made_again(tmp_path, spoil):
    good = distillation_set(prepared(), tmp_path, 0, quiet)
    (kept,) = tmp_path.iterdir()
    data = kept.read_bytes()
    if spoil.startswith("another"):
        np.save(kept, good.logits[:, 1:] if spoil == "another shape" else good.logits.astype(np.float64))
    else:
        kept.write_bytes({"truncated": data[:-10], "empty": b"", "garbage": b"PK\x03\x04" * 100}[spoil])
    assert same(everything(distillation_set(prepared(), tmp_path, 0, quiet)), everything(good))
    assert kept.read_bytes() == data


def test_no_more_images_than_needed_are_chosen_and_none_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(nas.training.teacher, "_MOST", 12)
    examples = distillation_set(prepared(), tmp_path, 0, quiet)
    assert len(examples) == 12
    assert examples.logits.shape == (2, 12, CLASSES)
    assert len(set(examples.chosen.tolist())) == 12
    assert 0 <= examples.chosen.min() <= examples.chosen.max() < COUNT


def test_answers_that_are_no_numbers_are_told_and_not_kept(tmp_path):
    with pytest.raises(DataError, match="not finite: train it again or check its weights"):
        distillation_set(prepared(model=Broken()), tmp_path, 0, quiet)
    assert not list(tmp_path.iterdir())
