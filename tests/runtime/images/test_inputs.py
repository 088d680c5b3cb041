"""From files, bytes, arrays and Pillow's images to pixels, against what Pillow says step by step."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from sample_pictures import encoded, orientation, pictures, scene

from modeltree.errors import ConfigError, DataError
from modeltree.preprocessing import PictureRule, Preprocessing
from runtime.images import entering, pixels_of

PICTURES = pictures()


def taking(height=32, width=32, **rule):
    count = PictureRule(**rule).count
    return Preprocessing(height=height, width=width, mean=(0.5,) * count, std=(0.25,) * count, rule=PictureRule(**rule))


def by_hand(data, height=32, width=32):
    """As a program would that knows nothing of ours; 16 bits taken as shares of 65535."""
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode == "I;16":
            picture = Image.fromarray(np.round(np.asarray(picture) / 257).astype(np.uint8))
        upright = ImageOps.exif_transpose(picture)
        plain = (upright.convert("RGBA") if upright.mode == "P" else upright).convert("RGB")
        return np.asarray(ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1).astype(int)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
def test_every_kind_of_file_is_seen_as_step_by_step(name, size):
    found = pixels_of(PICTURES[name], taking(*size))
    assert (found.dtype, found.shape) == (np.uint8, (3, *size))
    assert np.abs(found - by_hand(PICTURES[name], *size)).max() <= (6 if name == "black-and-white.png" else 2)


@pytest.mark.parametrize("number", range(1, 9))
def test_every_orientation_is_turned_upright(number):
    turned = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
              7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    plain = Image.fromarray(scene())
    stored = plain if number == 1 else plain.transpose(Image.Transpose[turned[number]])
    found = pixels_of(encoded(stored, "PNG", exif=orientation(number)), taking())
    assert np.array_equal(found, pixels_of(scene(), taking()))


def test_a_path_a_name_bytes_and_an_open_picture_are_the_same(tmp_path):
    file = tmp_path / "x.jpg"
    file.write_bytes(PICTURES["on-its-side.jpg"])
    wanted = pixels_of(file, taking())
    with Image.open(file) as picture:
        others = [str(file), file.read_bytes(), bytearray(file.read_bytes()), memoryview(file.read_bytes()), picture]
        assert all(np.array_equal(pixels_of(other, taking()), wanted) for other in others)


def test_a_picture_that_was_decoded_whole_differs_by_little_from_one_read_small():
    with Image.open(io.BytesIO(PICTURES["large.jpg"])) as picture:
        whole = pixels_of(np.asarray(picture), taking())
    difference = np.abs(whole.astype(int) - pixels_of(PICTURES["large.jpg"], taking()))
    assert difference.mean() < 0.5
    assert difference.max() <= 3


def test_arrays_of_every_layout_are_one_picture():
    image = scene()
    wanted = pixels_of(image, taking())
    opaque = np.dstack([image, np.full(image.shape[:2], 9, np.uint8)])
    for same in (np.moveaxis(image, -1, 0), opaque, np.moveaxis(opaque, -1, 0), image.astype(np.uint16) * 256 + 3):
        assert np.array_equal(pixels_of(same, taking()), wanted)
    grey = pixels_of(image[..., 0], taking())
    assert np.array_equal(grey, pixels_of(image[..., :1], taking()))
    assert np.array_equal(grey, np.repeat(grey[:1], 3, axis=0))


def test_pixels_in_the_networks_own_shape_are_taken_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    assert np.array_equal(pixels_of(pixels, taking(crop=0.5, channels="BGR")), pixels)


def test_channels_come_in_the_order_that_the_network_takes():
    colours, reversed_, grey = (pixels_of(scene(), taking(channels=order)) for order in ("RGB", "BGR", "L"))
    assert np.array_equal(colours[::-1], reversed_)
    assert grey.shape == (1, 32, 32)
    luma = np.tensordot((0.299, 0.587, 0.114), colours.astype(float), 1)
    assert np.abs(grey[0] - luma).max() <= 2
    assert np.array_equal(grey, pixels_of(encoded(Image.fromarray(scene()), "PNG"), taking(channels="L")))
    assert np.array_equal(pixels_of(scene()[..., 0], taking(channels="L"))[0], pixels_of(scene()[..., 0], taking())[0])


def test_without_pillow_arrays_come_out_the_same_and_files_say_what_is_missing(monkeypatch):
    wanted = pixels_of(scene(), taking(crop=0.875))
    monkeypatch.setattr("runtime.images.arrays.installed", lambda: False)
    assert np.array_equal(pixels_of(scene(), taking(crop=0.875)), wanted)
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ConfigError, match=r"nas-modeltree\[images\]"):
        pixels_of(PICTURES["plain.jpg"], taking())


def test_what_enters_the_network_is_normalised_once():
    x, pixels = entering(scene(), taking())
    assert np.allclose(x[0], (pixels / 255 - 0.5) / 0.25, atol=1e-6)
    again, none = entering(x[0], taking())
    assert np.array_equal(again, x)
    assert none is None


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((32, 32, 2), np.uint8), np.zeros(5, np.uint8), np.zeros((0, 4, 3), np.uint8),
        np.zeros((40, 40, 3), np.float64), np.full((3, 32, 32), np.nan, np.float32), np.zeros((2, 32, 32, 3), np.uint8),
        7, None, [b""], b"", b"not a picture", Path("nowhere.jpg"), "",
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_as_ours(wrong):
    with pytest.raises(DataError, match="image"):
        entering(wrong, taking())


def test_formats_beyond_the_known_ones_are_not_opened():
    for kind in ("GIF", "TIFF", "PCX"):
        with pytest.raises(DataError, match="cannot"):
            pixels_of(encoded(Image.fromarray(scene()), kind), taking())


def test_numbers_without_a_known_range_are_refused():
    with pytest.raises(DataError, match="8 or 16 bits"):
        pixels_of(Image.fromarray(scene()[..., 0].astype(np.float32)), taking())


def test_a_given_picture_is_left_as_it_is():
    picture = Image.fromarray(scene()).convert("RGBA")
    before = picture.tobytes()
    pixels_of(picture, taking())
    assert (picture.mode, picture.tobytes()) == ("RGBA", before)
