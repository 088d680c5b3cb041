"""Pictures that cross as files: what is coded comes back, what a stranger sends is refused or read, and no more."""

import contextlib
import io
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
from hostile_pictures import hostile, sound_files
from PIL import Image

from modeltree.errors import DataError
from modeltree.image_codes import image_code
from modeltree.preprocessing import PictureRule, Preprocessing
from runtime.images import coded, files, pixels_of, received, sendable_file
from runtime.images.files import LARGEST_FILE_BYTES
from runtime.images.headers import FileSize, claimed_size


def taking(channels="RGB", **rule):
    count = len(channels)
    return Preprocessing(
        height=32, width=32, mean=(0.5,) * count, std=(0.25,) * count, rule=PictureRule(channels=channels, **rule)
    )


def photo(channels=3, side=32):
    """Smooth, its channels far from each other."""
    ramp = np.linspace(20, 120, side)
    return np.stack([ramp[:, None] / (k + 1) + ramp[None] for k in range(channels)]).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", ["RGB", "BGR", "L"])
@pytest.mark.parametrize("code", ["jpeg:90", "webp:90", "came"])
def test_what_is_coded_comes_back_nearly_as_it_was_in_the_networks_order(channels, code):
    pixels = photo(len(channels))
    back = received(coded(pixels, image_code(code), channels), taking(channels), whole=False)
    assert np.abs(back.astype(int) - pixels).mean() < 5


def test_a_file_of_what_the_rule_cut_is_not_cut_again():
    rule = taking(crop=0.5)
    back = received(coded(photo(), image_code("jpeg:95"), "RGB"), rule, whole=False)
    assert np.abs(back.astype(int) - photo()).mean() < 3
    assert np.abs(received(coded(photo(), image_code("jpeg:95"), "RGB"), rule, whole=True) - 1.0 * photo()).mean() > 10


def test_a_smaller_side_takes_fewer_bytes_and_comes_back_at_full_size():
    small, full = (coded(photo(side=64), image_code(code), "RGB") for code in ("jpeg:75@16", "jpeg:75"))
    assert claimed_size(small)[1:3] == (16, 16)
    assert len(small) < len(full)
    assert received(small, taking(), whole=False).shape == (3, 32, 32)


@pytest.mark.parametrize("position", range(16))
def test_a_whole_file_gives_the_server_what_it_gives_the_device(position):
    data = sound_files(np.random.default_rng(1))[position]
    wanted = pixels_of(data, taking(crop=0.8))
    assert np.array_equal(received(memoryview(data), taking(crop=0.8), whole=True), wanted)
    with Image.open(io.BytesIO(data)) as picture:
        assert claimed_size(data)[:3] == (picture.format, *picture.size)


def test_a_picture_that_claims_to_be_huge_is_refused_before_a_decoder_takes_memory():
    for data in sound_files(np.random.default_rng(1)):
        if data[:2] == b"\xff\xd8":
            at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
            data = data[: at + 5] + struct.pack(">HH", 65535, 65535) + data[at + 9 :]
        elif data[12:16] == b"VP8 ":
            data = data[:26] + struct.pack("<HH", 16383, 16383) + data[30:]
        else:
            continue
        tracemalloc.start()
        with pytest.raises(DataError, match="16777216 pixels at most are decoded"):
            received(data, taking(), whole=True)
        assert tracemalloc.get_traced_memory()[1] < 2**16
        tracemalloc.stop()


def test_a_jpeg_of_thousands_of_scans_is_refused_unread():
    data = sound_files(np.random.default_rng(1))[1]
    at = data.find(b"\xff\xda")
    many = data[:-2] + data[at:-2] * 3000
    with pytest.raises(DataError, match="scans"):
        received(many, taking(), whole=True)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (FileSize("JPEG", 4096, 4096, 1), None),
        (FileSize("JPEG", 4096, 4096, 3), "too much work"),
        (FileSize("JPEG", 1800, 1800, 10), None),
        (FileSize("WEBP", 2896, 2896), None),
        (FileSize("WEBP", 4000, 4000), "too much work"),
    ],
)
def test_the_work_that_a_file_asks_of_a_decoder_is_bounded_by_what_it_claims(monkeypatch, header, why):
    decoded = []
    monkeypatch.setattr(files, "claimed_size", lambda data: header)
    monkeypatch.setattr(
        files, "read_file", lambda *told, **named: decoded.append(told) or np.zeros((8, 8, 3), np.uint8)
    )
    with contextlib.nullcontext() if why is None else pytest.raises(DataError, match=why):
        received(b"", taking(), whole=True)
    assert len(decoded) == (why is None)
    assert (files.sendable_file(b"any") is None) == (why is not None)  # no device sends what a server refuses


def test_a_picture_that_was_coded_for_a_network_is_not_much_larger_than_that_takes():
    file = io.BytesIO()
    height, width = taking().height, taking().width
    Image.new("RGB", (2 * width + 1, 2 * height)).save(file, "JPEG")
    with pytest.raises(DataError, match=f"{4 * height * width} pixels at most"):
        received(file.getvalue(), taking(), whole=False)
    assert received(file.getvalue(), taking(), whole=True).shape[1:] == (height, width)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP"])
def test_other_formats_are_refused(kind):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    with pytest.raises(DataError, match="must be a JPEG or WebP file"):
        received(file.getvalue(), taking(), whole=True)


def test_an_animation_is_refused():
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (200 * k, 0, 0)) for k in range(2)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="animated"):
        received(file.getvalue(), taking(), whole=True)


def test_hostile_pictures_are_read_or_refused_with_a_reason():
    rng = np.random.default_rng(5)
    files = sound_files(rng)
    refused = 0
    for _ in range(400):
        kind, data = hostile(files, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of what it passes over
            try:
                pixels = received(data, taking(), whole=bool(rng.integers(2)), most_pixels=2**16)
            except DataError:
                refused += 1
            else:
                assert pixels.shape == (3, 32, 32), kind
    assert 100 < refused < 400


def test_only_jpeg_and_webp_files_of_a_bearable_size_are_sent_as_they_are(tmp_path):
    data = sound_files(np.random.default_rng(1))[0]
    (tmp_path / "a.jpg").write_bytes(data)
    assert sendable_file(tmp_path / "a.jpg") == sendable_file(str(tmp_path / "a.jpg")) == sendable_file(data) == data
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    others = (tmp_path / "b.png", tmp_path / "none.jpg", photo(), b"", data + bytes(LARGEST_FILE_BYTES))
    assert [sendable_file(one) for one in others] == [None] * 5
