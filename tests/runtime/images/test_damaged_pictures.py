"""Damaged and hostile picture files: an answer or an error of ours, never another, and never without end."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from sample_pictures import encoded, orientation, pictures, scene

from modeltree.errors import DataError
from modeltree.preprocessing import Preprocessing
from runtime.images import pixels_of

TAKING = Preprocessing(height=16, width=16, mean=(0.5,) * 3, std=(0.25,) * 3)
PICTURES = {name: data for name, data in pictures().items() if not name.startswith(("large", "wide", "tall"))}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")


def answered(data):
    """Whether there was one; anything but a line of ours fails the test."""
    problem = ""
    try:
        pixels = pixels_of(data, TAKING)
        assert (pixels.shape, pixels.dtype) == ((3, 16, 16), np.uint8)
    except DataError as error:
        problem = str(error)
    assert not problem or ("image" in problem and "\n" not in problem)
    return not problem


@pytest.mark.parametrize("name", PICTURES)
def test_bytes_that_are_changed_are_answered_or_refused(name):
    rng = np.random.default_rng(len(name))
    data = PICTURES[name]
    read = 0
    for turn in range(60):
        spoilt = bytearray(data)
        reach = len(data) if turn % 2 else min(len(data), 200)  # headers are where the promises are
        for _ in range(int(rng.integers(1, 6))):
            spoilt[int(rng.integers(0, reach))] = int(rng.integers(0, 256))
        read += answered(summed(bytes(spoilt)) if name.endswith("png") else bytes(spoilt))
    assert read < 60
    assert read or name.endswith("png")


def summed(data):
    """A PNG whose chunks say that they are whole, so that what is in them is looked at."""
    out, at = data[:8], 8
    while at + 8 <= len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        body = data[at + 4 : at + 8 + size]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return out


@pytest.mark.parametrize("name", PICTURES)
def test_files_that_end_too_early_are_refused(name):
    data = PICTURES[name]
    for share in (0.01, 0.1, 0.5, 0.9):
        assert not answered(data[: int(share * len(data))])


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks, size=(4, 4)):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    rows = zlib.compress(b"".join(b"\0" + bytes(3 * 4) for _ in range(4)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "ancillary",
    [
        chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(200_000_000 // 100))), chunk(b"iCCP", b""),
        chunk(b"tEXt", b""), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(70_000_000))), chunk(b"zTXt", b"k\0\0bad"),
        chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(10))), chunk(b"pHYs", b"\0"), chunk(b"gAMA", b""),
        chunk(b"cHRM", b"\0\0"), chunk(b"tRNS", b""), chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"), chunk(b"eXIf", b"x"),
        chunk(b"PLTE", b"\0"), chunk(b"acTL", b""), chunk(b"fcTL", b"\0" * 3), b"\0\0\0\4gAMA\0\0\0\0bad!",
    ],
)  # fmt: skip
def test_damaged_chunks_beside_the_picture_are_answered_or_refused(ancillary):
    answered(png(ancillary))


def test_the_hand_made_file_is_sound_by_itself():
    assert answered(png())


@pytest.mark.parametrize("size", [(100_000, 100_000), (0, 4), (2**31 - 1, 1), (4, 2**31 - 1), (20_000, 8_000)])
def test_headers_that_promise_too_much_are_refused_before_they_are_believed(size):
    assert not answered(png(size=size))


def test_a_bomb_of_one_colour_is_refused_by_its_size():
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, "PNG")  # 10 kB that unfold to 240 MB of colours
    assert len(bomb.getvalue()) < 100_000
    with pytest.raises(DataError, match=r"image in memory is 9000 x 9000: at most"):
        pixels_of(bomb.getvalue(), TAKING)


@pytest.mark.parametrize("said", [0, 9, 65535])
def test_an_orientation_that_there_is_not_counts_as_upright(said):
    data = encoded(Image.fromarray(scene()), "PNG", exif=orientation(said))
    assert np.array_equal(pixels_of(data, TAKING), pixels_of(scene(), TAKING))


@pytest.mark.parametrize("body", [
    b"Exif\0\0", b"Exif\0\0II", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x05\0\0\0six\0\0",
    b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0MM\0*\xff\xff\xff\xff",
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\xff\xff\xff\xff",
])  # fmt: skip
def test_exif_of_the_wrong_type_is_answered_or_refused(body):
    data = PICTURES["plain.jpg"]
    answered(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
