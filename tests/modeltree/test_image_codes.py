"""How a picture crosses, as text."""

import pytest

from modeltree.errors import ConfigError
from modeltree.image_codes import image_code


@pytest.mark.parametrize("text", ["raw", "came", "jpeg:75", "webp:1", "jpeg:95@160"])
def test_a_code_is_read_and_written_alike(text):
    assert image_code(text).text == text
    assert image_code(text).title


@pytest.mark.parametrize("text", ["", "jpeg", "jpeg:0", "jpeg:96", "webp:5@", "jpeg:75@0", "png:3", "came:75"])
def test_anything_else_is_refused(text):
    with pytest.raises(ConfigError, match="it must be raw, came, jpeg:Q or webp:Q"):
        image_code(text)


def test_a_side_is_the_shorter_one_and_proportions_stay():
    code = image_code("jpeg:75@60")
    assert code.sides(120, 160) == (60, 80)
    assert code.sides(64, 64) == (60, 60)
    assert code.pixels(120, 160) == 4800


def test_a_smaller_side_is_fewer_pixels():
    assert image_code("jpeg:75").pixels(224, 200) == 224 * 200
    assert image_code("jpeg:75@160").pixels(224, 224) == 160 * 160
