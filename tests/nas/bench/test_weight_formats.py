"""Accuracy of a bundle whose samples leave by confidence: every image answers once, where it would leave."""

import numpy as np
import pytest
from exits_run import END, SURE, answered, compiled, entropy, image, threshold

from modeltree.manifest import decode_manifest
from nas.bench.weight_formats import measured_variants
from nas.data import Dataset, ImageSet

COUNT = 20


def test_images_answer_where_they_would_leave(tmp_path):
    """Half the links lead to the end, half to 4 bits, which cross unquantised here; both are the same network."""
    bundle = compiled(tmp_path)
    sure = [entropy(answered(SURE, image(seed))) <= threshold() for seed in range(COUNT)]
    said = [int(answered(SURE if sure[seed] else END, image(seed)).argmax()) for seed in range(COUNT)]
    labels = np.array([label if seed % 3 else (label + 1) % 4 for seed, label in enumerate(said)])  # 7 of 20 wrong
    part = ImageSet(images=np.stack([image(seed) for seed in range(COUNT)]), labels=labels)
    dataset = Dataset(name="digits", classes=("a", "b", "c", "d"), mean=(0.5,) * 3, std=(0.25,) * 3, fit=part,
                      search=part, test=part, flip=False)  # fmt: skip
    manifest = decode_manifest((bundle / "manifest.json").read_bytes(), "manifest.json")
    (found,) = measured_variants(manifest, bundle, dataset, COUNT).values()
    assert (found.accuracy, found.images) == (pytest.approx(65.0), COUNT)
