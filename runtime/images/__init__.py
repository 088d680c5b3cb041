"""Pictures become what a network takes: the one implementation, for training, evaluation, field runs and devices.

Numpy alone does arrays of pixels; files and Pillow's own images need Pillow, cameras and videos OpenCV.
"""

from runtime.images.entry import Entry, tensor_of
from runtime.images.files import can_code, coded, received, sendable_file
from runtime.images.folders import SUFFIXES, image_files
from runtime.images.inputs import Picture, Pictures, entering, pixels_of
from runtime.images.streams import frames

__all__ = [
    "SUFFIXES", "Entry", "Picture", "Pictures", "can_code", "coded", "entering", "frames", "image_files", "pixels_of",
    "received", "sendable_file", "tensor_of",
]  # fmt: skip
