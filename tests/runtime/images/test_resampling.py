"""Our scaling against Pillow's, bit by bit, so that devices without Pillow see what the others see."""

import numpy as np
import pytest
from PIL import Image

from runtime.images.pillow import resized_by_pillow
from runtime.images.resampling import resized

FILTERS = {"box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
           "lanczos": Image.Resampling.LANCZOS}  # fmt: skip


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_numpy_scales_as_pillow_does_to_the_bit(kind, channels):
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows, columns, height, width = (int(size) for size in rng.integers(1, 90, 4))
        pixels = rng.integers(0, 256, (rows, columns, channels), dtype=np.uint8)
        left, upper = rng.uniform(0, 0.4, 2) * (columns, rows)
        right, lower = rng.uniform(0.6, 1.0, 2) * (columns, rows)
        for box in ((left, upper, right, lower), (0, 0, columns, rows)):
            ours, theirs = (scale(pixels, height, width, box, kind) for scale in (resized, resized_by_pillow))
            assert ours.shape == (height, width, channels)
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("kind", FILTERS)
def test_one_direction_at_a_time_is_what_pillow_does_in_one_call(kind):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    for height, width in ((40, 17), (23, 30)):
        whole = np.asarray(Image.fromarray(pixels).resize((width, height), FILTERS[kind]))
        assert np.array_equal(resized(pixels, height, width, (0, 0, 30, 40), kind), whole)


def test_one_colour_stays_that_colour():
    for kind in FILTERS:
        grey = np.full((31, 17, 1), 201, np.uint8)
        assert (resized(grey, 64, 9, (0.3, 1.1, 16.2, 30.9), kind) == 201).all()
