"""Pictures become what a network takes: the one implementation, for training, evaluation, field runs and devices.

Numpy alone does arrays of pixels; files and Pillow's own images need Pillow, cameras and videos OpenCV.
"""

from runtime.images.folders import SUFFIXES, image_files
from runtime.images.inputs import Picture, Pictures, entering, pixels_of
from runtime.images.streams import frames

__all__ = ["SUFFIXES", "Picture", "Pictures", "entering", "frames", "image_files", "pixels_of"]
