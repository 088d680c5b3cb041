"""Data sets: parts that never mix, hostile files refused, caches that are right or rebuilt."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modeltree.errors import BrokenImages, ConfigError, DataError
from modeltree.preprocessing import PictureRule
from nas.data import Dataset, ImageSet, cifar10, jpeg_round_trip, load_dataset
from nas.data.split import mean_and_std, stratified
from runtime.images import pixels_of


def test_stratified_gives_every_class_its_share(rng):
    labels = rng.permutation(np.repeat([0, 1, 2], [10, 20, 31]))
    rest, held = stratified(labels, 12, rng)
    # shares 10, 20, 31 of 61 times 12: 1.97, 3.93, 6.10
    assert np.bincount(labels[held]).tolist() == [2, 4, 6]
    assert sorted([*rest, *held]) == list(range(61))


def test_stratified_never_takes_the_last_of_a_class(rng):
    rest, held = stratified(np.array([0, 1, 1]), 3, rng)
    assert len(held) == 1
    assert len(rest) == 2


def test_mean_and_std_by_hand():
    images = np.zeros((2, 3, 1, 1), np.uint8)
    images[1, 0] = 255
    assert mean_and_std(images) == ((0.5, 0.0, 0.0), (0.5, 1 / 255, 1 / 255))


def test_digits_come_in_three_parts_that_do_not_overlap():
    data = load_dataset("digits")
    assert (len(data.fit), len(data.search), len(data.test)) == (1222, 216, 359)
    parts = [{image.tobytes() for image in part.images} for part in (data.fit, data.search, data.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 1797
    assert all(set(part.labels) == set(range(10)) for part in (data.fit, data.search, data.test))
    assert data.image_shape == (3, 32, 32)
    assert not data.flip


def test_a_seed_decides_the_split():
    one, again, other = (load_dataset("digits", image_size=8, seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint == again.fingerprint
    assert one.fingerprint != other.fingerprint
    assert not np.array_equal(one.test.images, other.test.images)


def _dataset(images: np.ndarray) -> Dataset:
    part = ImageSet(images=images, labels=np.zeros(len(images), np.int64))
    mean, std = (0.5, 0.0, 1.0), (0.5, 0.25, 1.0)
    return Dataset(
        name="x", classes=("a", "b"), mean=mean, std=std, fit=part, search=part, test=part, flip=True
    )  # fmt: skip


def test_normalise_by_hand_for_arrays_and_tensors():
    images = np.full((1, 3, 1, 1), 255, np.uint8)
    data = _dataset(images)
    for given in (images, torch.from_numpy(images)):
        torch.testing.assert_close(data.normalise(given).flatten(), torch.tensor([1.0, 4.0, 0.0]))


def test_arrays_and_tensors_are_normalised_to_the_same_bits(rng):
    images = rng.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    data = replace(_dataset(images), mean=cifar10.MEAN, std=cifar10.STD)
    assert np.array_equal(data.normalise(images).numpy(), data.normalise(torch.from_numpy(images)).numpy())


@pytest.mark.parametrize("images", [np.zeros((1, 3, 4, 4), np.float32), np.zeros((3, 4, 4), np.uint8)])
def test_images_of_another_type_or_shape_are_refused(images):
    with pytest.raises(DataError, match="must be uint8"):
        _dataset(np.zeros((1, 3, 4, 4), np.uint8)).normalise(images)
    with pytest.raises(DataError, match="must be uint8"):
        ImageSet(images=images, labels=np.zeros(1, np.int64))


def test_one_changed_pixel_changes_the_fingerprint():
    images = np.zeros((3, 3, 4, 4), np.uint8)
    changed = images.copy()
    changed[1, 2, 3, 3] = 1
    assert _dataset(images).fingerprint != _dataset(changed).fingerprint


@pytest.mark.parametrize("spec", ["digit", "", "cifar10", "cifar10:", "imagefolder:", "digits:/tmp", "mnist:x"])
def test_bad_specs_are_refused(spec):
    with pytest.raises(ConfigError):
        load_dataset(spec)


def test_digits_come_in_one_channel_and_in_any_proportions():
    grey = load_dataset("digits", image_size=8, rule=PictureRule(channels="L"))
    assert grey.image_shape == (1, 8, 8)
    assert len(grey.mean) == len(grey.std) == 1
    assert np.array_equal(grey.test.images[:, 0], load_dataset("digits", image_size=8).test.images[:, 2])
    wide = load_dataset("digits", image_size="16x8", rule=PictureRule(resize="stretch"))
    assert wide.image_shape == wide.preprocessing.shape == (3, 8, 16)
    assert grey.normalise(grey.test.images).shape[1:] == (1, 8, 8)


def test_what_a_network_was_normalised_by_can_be_said():
    data = load_dataset("digits", image_size=8, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    assert (data.mean, data.preprocessing.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    for mean, std in (((0.1,), (1.0,)), ((0.1, 0.2, 0.3), ()), ((0.1, 0.2, 0.3), (1.0, 0.0, 1.0))):
        with pytest.raises(ConfigError, match="a number a channel"):
            load_dataset("digits", image_size=8, mean=mean, std=std)


def test_grey_pictures_lose_little_as_jpegs():
    grey = load_dataset("digits", image_size=16, rule=PictureRule(channels="L")).test.images[:4]
    decoded, size_bytes = jpeg_round_trip(grey, 95)
    assert decoded.shape == grey.shape
    assert np.abs(decoded.astype(int) - grey).mean() < 3
    assert size_bytes < jpeg_round_trip(grey.repeat(3, axis=1), 95)[1]


@pytest.mark.parametrize(("spec", "size"), [("digits", 7), ("digits", "64x7"), ("cifar10:/nowhere", 64)])
def test_bad_sizes_are_refused(spec, size):
    with pytest.raises(ConfigError, match="image size"):
        load_dataset(spec, image_size=size)


# image folders


def _folder(root: Path, rng, parts=("train", "test"), classes=("cat", "dog"), each=10) -> Path:
    for part in parts:
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for k in range(each):
                pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{k}.png")
    return root


def test_an_image_folder_is_split_and_labelled_by_its_folders(tmp_path, rng):
    root = _folder(tmp_path, rng)
    data = load_dataset(f"imagefolder:{root}", image_size=12)
    assert data.classes == ("cat", "dog")
    assert (len(data.fit), len(data.search), len(data.test)) == (18, 2, 20)
    assert data.test.labels.tolist() == [0] * 10 + [1] * 10
    centre = np.asarray(Image.open(root / "test" / "cat" / "0.png"))[:, 2:14]  # shorter side already fits
    assert np.array_equal(data.test.images[0], centre.transpose(2, 0, 1))
    assert (data.mean, data.std) == mean_and_std(data.fit.images)


def test_with_val_and_test_the_search_looks_at_val(tmp_path, rng):
    root = _folder(tmp_path, rng, parts=("train", "val", "test"), each=3)
    data = load_dataset(f"imagefolder:{root}", image_size=12)
    assert (len(data.fit), len(data.search), len(data.test)) == (6, 6, 6)
    assert np.array_equal(data.search.images[0], pixels_of(root / "val" / "cat" / "0.png", data.preprocessing))


def test_the_classes_of_cifar_at_32_get_its_statistics(tmp_path, rng):
    root = _folder(tmp_path, rng, classes=cifar10.CLASSES, each=2)
    assert load_dataset(f"imagefolder:{root}").mean == cifar10.MEAN
    assert load_dataset(f"imagefolder:{root}", image_size=16).mean != cifar10.MEAN


@pytest.mark.cifar
@pytest.mark.slow
def test_cifar_as_an_image_folder_is_read_whole(tmp_path):
    home = os.environ.get("NAS_CIFAR_DIR")
    if not home:
        pytest.skip("set NAS_CIFAR_DIR to a folder with CIFAR-10 as train/ and test/ class folders")
    data = load_dataset(f"imagefolder:{home}", cache=tmp_path)
    assert np.bincount(data.fit.labels).tolist() == [4500] * 10
    assert np.bincount(data.search.labels).tolist() == [500] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    np.testing.assert_allclose(mean_and_std(data.fit.images)[0], data.mean, atol=0.01)


def test_the_cache_gives_the_same_images_and_notices_a_change(tmp_path, rng, monkeypatch):
    root, cache = _folder(tmp_path / "images", rng), tmp_path / "cache"
    plain = load_dataset(f"imagefolder:{root}", image_size=8)
    first = load_dataset(f"imagefolder:{root}", image_size=8, cache=cache)
    assert isinstance(first.fit.images, np.memmap)
    assert first.fingerprint == plain.fingerprint
    with monkeypatch.context() as patch:
        patch.setattr("nas.data.decoding.pixels_of", None)  # a second decoding would fail
        assert load_dataset(f"imagefolder:{root}", image_size=8, cache=cache).fingerprint == plain.fingerprint
    Image.new("RGB", (12, 12)).save(root / "test" / "cat" / "0.png")
    os.utime(root / "test" / "cat" / "0.png", ns=(time.time_ns(), time.time_ns() + 10**9))
    assert not load_dataset(f"imagefolder:{root}", image_size=8, cache=cache).test.images[0].any()


@pytest.mark.parametrize("content", [b"", b"junk", b"\x93NUMPY\x01\x00"])
def test_a_spoilt_cache_is_built_again(tmp_path, rng, content):
    root, cache = _folder(tmp_path / "images", rng, each=3), tmp_path / "cache"
    before = load_dataset(f"imagefolder:{root}", image_size=8, cache=cache).fingerprint
    for path in cache.iterdir():
        path.write_bytes(content)
    assert load_dataset(f"imagefolder:{root}", image_size=8, cache=cache).fingerprint == before


def _damage(*paths: Path) -> None:
    for path in paths:
        path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize("cached", [False, True])
def test_a_broken_image_is_named_and_the_rest_goes_on(tmp_path, rng, cached):
    root, cache = _folder(tmp_path / "images", rng), tmp_path / "cache" if cached else None
    whole = load_dataset(f"imagefolder:{root}", image_size=8)
    _damage(root / "test" / "dog" / "3.png")
    for _ in range(2):  # the second time from the cache, if there is one
        with pytest.warns(BrokenImages, match=r"1 of 20 images in .* left out: cannot read image .*dog/3\.png"):
            data = load_dataset(f"imagefolder:{root}", image_size=8, cache=cache)
        assert np.array_equal(data.test.images, np.delete(whole.test.images, 13, axis=0))
        assert data.test.labels.tolist() == [0] * 10 + [1] * 9
        assert np.array_equal(data.fit.images, whole.fit.images)


def test_of_many_broken_images_the_first_are_named(tmp_path, rng):
    root = _folder(tmp_path, rng)
    _damage(*(root / "test" / "dog" / f"{k}.png" for k in range(5)))
    with pytest.warns(BrokenImages, match=r"5 of 20 .*2\.png.*; and 2 more"):
        load_dataset(f"imagefolder:{root}", image_size=8)


def test_a_class_of_broken_images_and_a_folder_of_them_are_refused(tmp_path, rng):
    root = _folder(tmp_path, rng, each=6)
    _damage(*(root / "test" / "cat").iterdir())
    with pytest.raises(DataError, match=r"6 of 12 images in .* or a whole class: cannot read image .*cat/0\.png"):
        load_dataset(f"imagefolder:{root}", image_size=8)


def test_what_systems_leave_is_no_image_and_no_class(tmp_path, rng):
    root = _folder(tmp_path, rng)
    before = load_dataset(f"imagefolder:{root}", image_size=8).fingerprint
    for part in ("train", "test"):
        for name in (".DS_Store", "Thumbs.db", "._0.jpg", "desktop.ini"):
            (root / part / "cat" / name).write_bytes(b"no image")
        for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
            for home in (root / part / "cat" / name, root / part / name):
                home.mkdir()
                Image.new("RGB", (12, 12)).save(home / "0-checkpoint.png")
    assert load_dataset(f"imagefolder:{root}", image_size=8).fingerprint == before


def _without_test(root: Path) -> None:
    (root / "test").rename(root / "other")


def _empty_class(root: Path) -> None:
    (root / "train" / "eel").mkdir()


def _stray_test_class(root: Path) -> None:
    (root / "test" / "dog").rename(root / "test" / "eel")


def _one_class(root: Path) -> None:
    (root / "train" / "dog").rename(root / "dog")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_test, "must hold train/ and val/ or test/"),
        (_empty_class, "eel holds no image"),
        (_stray_test_class, "eel is a class that train/ does not have"),
        (_one_class, "at least 2"),
    ],
)
def test_folders_that_are_not_as_they_must_be_are_refused(tmp_path, rng, spoil, message):
    spoil(_folder(tmp_path, rng, each=3))
    with pytest.raises(DataError, match=message):
        load_dataset(f"imagefolder:{tmp_path}", image_size=8)


# JPEG


def test_a_jpeg_of_one_colour_comes_back_and_costs_its_file(tmp_path):
    images = np.full((2, 3, 16, 16), 128, np.uint8)
    decoded, mean_bytes = jpeg_round_trip(images)
    Image.fromarray(images[0].transpose(1, 2, 0)).save(tmp_path / "x.jpg", quality=75)
    assert np.array_equal(decoded, images)
    assert mean_bytes == (tmp_path / "x.jpg").stat().st_size


def test_lower_quality_is_smaller_and_further_off(rng):
    smooth = np.cumsum(rng.integers(-3, 4, (4, 3, 32, 32)), axis=3).clip(-100, 100) + 128
    images = smooth.astype(np.uint8)
    results = [jpeg_round_trip(images, quality) for quality in (95, 75, 20)]
    errors = [np.abs(decoded.astype(int) - images).mean() for decoded, _ in results]
    assert errors == sorted(errors)
    assert [size for _, size in results] == sorted((size for _, size in results), reverse=True)


@pytest.mark.parametrize("quality", [0, 96])
def test_quality_out_of_range_is_refused(quality):
    with pytest.raises(ConfigError, match="quality"):
        jpeg_round_trip(np.zeros((1, 3, 8, 8), np.uint8), quality)


def test_no_images_are_refused():
    with pytest.raises(DataError, match="at least 1"):
        jpeg_round_trip(np.zeros((0, 3, 8, 8), np.uint8))
