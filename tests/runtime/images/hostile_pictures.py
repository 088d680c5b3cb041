"""Pictures that a stranger may send: sound ones, damaged in every way that a generator can think of."""

import io
import struct

import numpy as np
from PIL import Image


def sound_files(rng):
    """JPEG and WebP files of several kinds, small."""
    files = []
    for height, width in ((24, 31), (64, 48)):
        ramp = np.linspace(0, 200, width)[None, :, None] + rng.normal(20, 20, (height, width, 3))
        picture = Image.fromarray(ramp.clip(0, 255).astype(np.uint8))
        for kind, options in (
            ("JPEG", {"quality": 75}), ("JPEG", {"quality": 60, "progressive": True}), ("JPEG", {"subsampling": 0}),
            ("WEBP", {"quality": 60, "method": 0}), ("WEBP", {"lossless": True, "method": 0}),
        ):  # fmt: skip
            file = io.BytesIO()
            picture.save(file, kind, **options)
            files.append(file.getvalue())
        for one in (picture.convert("L"), picture.convert("CMYK")):
            file = io.BytesIO()
            one.save(file, "JPEG")
            files.append(file.getvalue())
        exif = Image.Exif()
        exif[0x0112] = 6
        file = io.BytesIO()
        picture.save(file, "JPEG", exif=exif)
        files.append(file.getvalue())
    return files


def hostile(files, rng):
    """One picture: (what was done to it, its bytes)."""
    data = bytearray(files[rng.integers(len(files))])
    kind = ("bits", "bytes", "cut", "grown", "spliced", "size", "scans", "noise", "length")[rng.integers(9)]
    if kind in ("bits", "bytes"):
        for at in rng.integers(0, len(data), rng.integers(1, 20)):
            data[at] = data[at] ^ (1 << rng.integers(8)) if kind == "bits" else rng.integers(256)
    elif kind == "cut":
        data = data[: rng.integers(len(data))]
    elif kind == "grown":
        data += rng.bytes(rng.integers(1, 2000))
    elif kind == "spliced":
        other = files[rng.integers(len(files))]
        data = data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]
    elif kind == "size":
        data = _lying(data, rng)
    elif kind == "scans":
        at = data.find(b"\xff\xda")
        data = data[:-2] + data[at:-2] * int(rng.integers(1, 40)) + data[-2:]
    elif kind == "noise":
        data = data[:4] + rng.bytes(rng.integers(0, 400))
    else:
        at = rng.integers(0, max(1, len(data) - 4))
        data[at : at + 2] = struct.pack(">H", int(rng.integers(2**16)))
    return kind, bytes(data)


def _lying(data, rng):
    """A file that says it is as large as its format allows, or has no size at all."""
    height, width = (int(rng.choice([0, 1, 5000, 16383, 65535])) for _ in range(2))
    if data[:2] == b"\xff\xd8":
        for marker in (b"\xff\xc0", b"\xff\xc2"):
            if (at := data.find(marker)) >= 0:
                data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    elif data[12:16] == b"VP8 ":
        data[26:30] = struct.pack("<HH", width & 0x3FFF, height & 0x3FFF)
    else:
        data[21:25] = int(rng.integers(2**32)).to_bytes(4, "little")
    return data
