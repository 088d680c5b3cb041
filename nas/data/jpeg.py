"""What a JPEG does to an image, for the baseline that sends one to the cloud."""

import io

import numpy as np
from PIL import Image

from modeltree.errors import ConfigError, DataError
from modeltree.preprocessing import PictureRule
from nas.data.decoding import pixels_alone
from runtime.images import pixels_of


def jpeg_round_trip(images: np.ndarray, quality: int = 75) -> tuple[np.ndarray, float]:
    """Encode and decode every image as JPEG.

    Parameters
    ----------
    images : (n, 3, h, w) uint8, RGB, or (n, 1, h, w), grey; n at least 1.
    quality : Pillow's, 1 to 95.

    Returns
    -------
    (images, mean_bytes) : the decoded images, of the same shape, and the mean size of a file in bytes.

    Raises
    ------
    ConfigError : `quality` is out of range.
    DataError : images of another shape or type.
    """
    if not 1 <= quality <= 95:
        raise ConfigError(f"JPEG quality is {quality} but must be 1..95: 75 is usual")
    grey = images.shape[1:2] == (1,)
    if images.dtype != np.uint8 or images.ndim != 4 or not (grey or images.shape[1] == 3) or not len(images):
        raise DataError(f"images are {images.dtype} {images.shape} but must be uint8 (n, 1 or 3, h, w), n at least 1")
    decoded = np.empty_like(images, subok=False)
    as_it_is = pixels_alone(images.shape[2], images.shape[3], PictureRule(channels="L" if grey else "RGB"))
    size_bytes = 0
    for index, image in enumerate(images):
        file = io.BytesIO()
        shown = image[0] if grey else image.transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(shown)).save(file, "JPEG", quality=quality)
        size_bytes += file.tell()
        decoded[index] = pixels_of(file.getvalue(), as_it_is)
    return decoded, size_bytes / len(images)
