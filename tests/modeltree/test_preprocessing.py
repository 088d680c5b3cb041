"""What a picture becomes, by hand."""

import msgspec
import numpy as np
import pytest

from modeltree.errors import ConfigError, DataError, FormatError
from modeltree.preprocessing import PictureRule, Preprocessing, image_size


def preprocessing(height=20, width=20, **rule):
    count = PictureRule(**rule).count
    return Preprocessing(height=height, width=width, mean=(0.5,) * count, std=(0.25,) * count, rule=PictureRule(**rule))


@pytest.mark.parametrize(
    ("wanted", "picture", "box"),
    [
        (preprocessing(), (100, 60), (20, 0, 80, 60)),
        (preprocessing(), (60, 100), (0, 20, 60, 80)),
        (preprocessing(), (33, 33), (0, 0, 33, 33)),
        (preprocessing(height=10), (100, 60), (0, 5, 100, 55)),
        (preprocessing(height=10), (200, 60), (40, 0, 160, 60)),
        (preprocessing(resize="stretch"), (100, 60), (0, 0, 100, 60)),
        (preprocessing(crop=0.5), (100, 60), (35, 15, 65, 45)),
        (preprocessing(crop=0.5, resize="stretch"), (100, 60), (25, 15, 75, 45)),
    ],
)
def test_the_box_is_cut_about_the_centre(wanted, picture, box):
    assert wanted.box(*picture) == pytest.approx(box)


def test_a_size_is_written_width_first():
    assert image_size("160x120") == (120, 160) == (image_size("160x120").height, image_size("160x120").width)
    assert image_size(32) == image_size("32") == (32, 32)


@pytest.mark.parametrize("text", ["", "0", "160x", "x120", "160*120", "-3", "1e2", "160x120x3"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="WIDTHxHEIGHT"):
        image_size(text)


def test_pixels_are_normalised_by_channel():
    taken = Preprocessing(height=1, width=1, mean=(0.0, 0.5, 1.0), std=(1.0, 0.25, 0.5))
    pixels = np.array([255, 255, 0], np.uint8).reshape(3, 1, 1)
    assert taken.normalised(pixels).ravel().tolist() == [1.0, 2.0, -2.0]
    assert taken.normalised(pixels[None, None]).shape == (1, 1, 3, 1, 1)
    assert taken.normalised(pixels).dtype == np.float32


@pytest.mark.parametrize("pixels", [np.zeros((3, 2, 2), np.float32), np.zeros((1, 2, 2), np.uint8),
                                    np.zeros(3, np.uint8)])  # fmt: skip
def test_pixels_of_another_type_or_count_are_refused(pixels):
    with pytest.raises(DataError, match="must be uint8"):
        preprocessing().normalised(pixels)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"height": 0}, "at least 1"),
        ({"mean": (0.5,)}, "3 numbers each"),
        ({"std": (1.0, 0.0, 1.0)}, "above 0"),
        ({"std": (1.0, float("inf"), 1.0)}, "finite"),
        ({"rule": PictureRule(channels="L")}, "1 numbers each"),
    ],
)
def test_what_contradicts_itself_is_refused(spoil, message):
    fields = {"height": 8, "width": 8, "mean": (0.5,) * 3, "std": (0.5,) * 3} | spoil
    with pytest.raises(FormatError, match=message):
        Preprocessing(**fields)


@pytest.mark.parametrize("crop", [0.0, 1.5, -1.0, float("nan")])
def test_a_crop_outside_the_picture_is_refused(crop):
    with pytest.raises(FormatError, match=r"within 0\.\.1"):
        PictureRule(crop=crop)


@pytest.mark.parametrize("text", ['{"filter": "nearest"}', '{"channels": "YUV"}', '{"crop": 2}', '{"turn": true}'])
def test_a_rule_from_a_file_says_nothing_unknown(text):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=PictureRule)
