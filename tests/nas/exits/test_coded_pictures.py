"""The picture as a fork: training sees what the server will, and what no one would send is left out."""

import numpy as np
import pytest
import torch

from modeltree.image_codes import image_code
from modeltree.preprocessing import PictureRule, Preprocessing
from nas.data import load_dataset
from nas.exits.pictures import sent
from nas.treesearch.options.endings import worth_sending
from nas.treesearch.problem import HAND, Ending
from runtime.images import coded, received

TAKING = Preprocessing(height=16, width=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), rule=PictureRule(crop=0.9))


def images():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    return pixels, torch.from_numpy(TAKING.normalised(pixels))


@pytest.mark.parametrize("text", ["jpeg:75", "webp:30", "jpeg:75@8"])
def test_training_sees_to_the_bit_what_the_server_will(text):
    pixels, normalised = images()
    seen, sizes = sent(normalised, image_code(text), TAKING)
    files = [coded(one, image_code(text), "RGB") for one in pixels]
    wanted = np.stack([received(file, TAKING, whole=False) for file in files])
    assert np.array_equal(seen.numpy(), TAKING.normalised(wanted))
    assert sizes == list(map(len, files))


def test_a_picture_that_crosses_as_it_came_is_the_same_there():
    _, normalised = images()
    assert sent(normalised, image_code("came"), TAKING)[0] is normalised


def way(picture, device_ms, size_bytes, damage):
    return Ending(
        kind=HAND, picture=picture, device_ms=device_ms, bytes=size_bytes, damage=damage, cloud_ms=1.0,
        transfer_ms=np.zeros(1),
    )  # fmt: skip


def test_ways_to_send_that_another_beats_are_left_out_but_for_what_one_would_try_first():
    ways = [
        way("jpeg:75", 1.0, 5000, 3), way("came", 0.0, 16000, 0), way("jpeg:90", 1.0, 9000, 0),
        way("jpeg:50", 1.0, 5000, 4), way("webp:75", 1.0, 4000, 3),
    ]  # fmt: skip
    assert [one.picture for one in worth_sending(ways)] == ["jpeg:75", "came", "jpeg:90", "webp:75"]


def test_a_folder_of_jpegs_tells_what_a_camera_would_send_and_one_of_bitmaps_does_not(tmp_path):
    from PIL import Image

    for suffix in ("jpg", "bmp"):
        for part in ("train", "test"):
            for name in ("a", "b"):
                (tmp_path / suffix / part / name).mkdir(parents=True)
                for k in range(8):
                    Image.new("RGB", (20, 10), (20 * k, 9, 9)).save(tmp_path / suffix / part / name / f"{k}.{suffix}")
    jpegs, bitmaps = (load_dataset(f"imagefolder:{tmp_path / s}", image_size=8) for s in ("jpg", "bmp"))
    sizes = [path.stat().st_size for path in (tmp_path / "jpg" / "test").rglob("*.jpg")]
    assert jpegs.files is not None
    assert (jpegs.files.bytes, jpegs.files.pixels) == (pytest.approx(np.mean(sizes)), 200)
    assert bitmaps.files is None
