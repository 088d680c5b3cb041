"""One scene in every form that cameras and programs leave it in."""

import io

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 90, 140


def scene(height=HEIGHT, width=WIDTH):
    """(height, width, 3) uint8: smooth, without symmetry, every corner of another colour."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = 30 * np.sin(9 * x + 5 * y * y)
    return (
        np.stack([40 + 150 * x + waves, 60 + 120 * y - waves, 200 - 130 * x * y], axis=-1).clip(0, 255).astype(np.uint8)
    )


def encoded(picture, kind="JPEG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def orientation(number):
    tags = Image.Exif()
    tags[0x0112] = number
    return tags


def on_its_side():
    """The scene as a camera stores it that was turned: shown right only with its EXIF heeded."""
    return encoded(Image.fromarray(scene()).transpose(Image.Transpose.ROTATE_90), quality=95, exif=orientation(6))


def palette_with_transparency():
    picture = Image.fromarray(scene()).quantize(64)
    return encoded(picture, "PNG", transparency=bytes(range(0, 256, 4)))


def sixteen_bit():
    grey = np.asarray(Image.fromarray(scene()).convert("L")).astype(np.uint16)
    return encoded(Image.fromarray(grey * 256 + 77), "PNG")


def pictures():
    """Name -> the file's bytes; all but the wide and the large one show the scene, some in grey or few colours."""
    plain = Image.fromarray(scene())
    return {
        "plain.jpg": encoded(plain, quality=95),
        "plain.png": encoded(plain, "PNG"),
        "plain.webp": encoded(plain, "WEBP", lossless=True),
        "plain.bmp": encoded(plain, "BMP"),
        "on-its-side.jpg": on_its_side(),
        "wide.jpg": encoded(Image.fromarray(scene(60, 400)), quality=95),
        "tall.png": encoded(Image.fromarray(scene(300, 50)), "PNG"),
        "large.jpg": encoded(Image.fromarray(scene(900, 1400)), quality=95),
        "grey.jpg": encoded(plain.convert("L"), quality=95),
        "cmyk.jpg": encoded(plain.convert("CMYK"), quality=95),
        "progressive.jpg": encoded(plain, quality=95, progressive=True),
        "palette.png": palette_with_transparency(),
        "transparent.png": encoded(plain.convert("RGBA"), "PNG"),
        "black-and-white.png": encoded(plain.convert("1"), "PNG"),
        "sixteen.png": sixteen_bit(),
    }
