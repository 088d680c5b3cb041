"""CIFAR-10 as its authors pack it: both forms, pickles that must not run, a download that is checked."""

import hashlib
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from modeltree.errors import DataError
from nas.data import cifar10, load_dataset

NAMES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


def _batches(rng, count: int = 20) -> list[tuple[np.ndarray, list[int]]]:
    labels = [[int(k) for k in rng.permutation(np.arange(count) % 10)] for _ in range(6)]
    return [(rng.integers(0, 256, (count, 3072), dtype=np.uint8), of) for of in labels]


def _write_python(home: Path, batches) -> None:
    home.mkdir(parents=True)
    for name, (pixels, labels) in zip(NAMES, batches, strict=True):
        (home / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}, protocol=3))


def test_the_python_and_the_binary_files_give_the_same_images(tmp_path, rng):
    batches = _batches(rng)
    _write_python(tmp_path / "p" / "cifar-10-batches-py", batches)
    home = tmp_path / "b" / "cifar-10-batches-bin"
    home.mkdir(parents=True)
    for name, (pixels, labels) in zip(NAMES, batches, strict=True):
        records = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1)
        (home / f"{name}.bin").write_bytes(records.tobytes())
    one, two = load_dataset(f"cifar10:{tmp_path}/p"), load_dataset(f"cifar10:{home}")
    assert one.fingerprint == two.fingerprint
    assert (len(one.fit), len(one.search), len(one.test)) == (90, 10, 20)
    assert np.array_equal(one.test.images[3], batches[5][0][3].reshape(3, 32, 32))
    assert one.test.labels.tolist() == batches[5][1]


def test_a_batch_as_python_2_wrote_it_is_read(tmp_path, rng):
    batches = _batches(rng)
    _write_python(tmp_path / "cifar-10-batches-py", batches)
    expected = load_dataset(f"cifar10:{tmp_path}").fingerprint
    pixels, labels = batches[0]
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"  # _reconstruct(ndarray, (0,), "b")
        b"(K\x01" + bytes([ord("K"), 20, ord("M"), 0, 12, 0x86])  # version 1, shape (20, 3072)
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNtb"  # dtype("u1", 0, 1) and its state
        + b"\x89T" + pixels.nbytes.to_bytes(4, "little") + pixels.tobytes() + b"tb"
    )  # fmt: skip
    listed = b"](" + b"".join(bytes([ord("K"), k]) for k in labels) + b"e"
    batch = b"\x80\x02}(U\x04data" + array + b"U\x06labels" + listed + b"u."
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(batch)
    assert load_dataset(f"cifar10:{tmp_path}").fingerprint == expected


class _Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["NAS_EVIL"],)


def test_a_pickle_with_a_payload_is_refused_and_not_run(tmp_path, rng, monkeypatch):
    monkeypatch.setenv("NAS_EVIL", str(tmp_path / "pwned"))
    home = tmp_path / "cifar-10-batches-py"
    _write_python(home, _batches(rng))
    (home / "data_batch_3").write_bytes(pickle.dumps({b"data": _Evil(), b"labels": []}, protocol=3))
    with pytest.raises(DataError, match=r"data_batch_3.*mkdir"):
        load_dataset(f"cifar10:{tmp_path}")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps({b"labels": [1]}, protocol=3),
        pickle.dumps([1, 2], protocol=3),
        pickle.dumps({b"data": np.zeros((2, 3071), np.uint8), b"labels": [1, 2]}, protocol=3),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, protocol=3),
        pickle.dumps({b"data": np.zeros((2, 3072), np.float32), b"labels": [1, 2]}, protocol=3),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]}, protocol=3),
    ],
)
def test_broken_batches_are_refused(tmp_path, rng, content):
    home = tmp_path / "cifar-10-batches-py"
    _write_python(home, _batches(rng))
    (home / "data_batch_2").write_bytes(content)
    with pytest.raises(DataError, match="fetch"):
        load_dataset(f"cifar10:{tmp_path}")


def test_a_folder_without_batches_says_how_to_fetch_them(tmp_path):
    with pytest.raises(DataError, match="download"):
        load_dataset(f"cifar10:{tmp_path}")


def test_a_download_is_checked_before_it_is_unpacked(tmp_path, rng):
    _write_python(tmp_path / "from" / "cifar-10-batches-py", _batches(rng))
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "from" / "cifar-10-batches-py", "cifar-10-batches-py")
    home = tmp_path / "to"
    with pytest.raises(DataError, match="MD5"):
        cifar10.download(home, url=archive.as_uri())
    assert list(home.iterdir()) == []
    cifar10.download(home, url=archive.as_uri(), md5=hashlib.md5(archive.read_bytes()).hexdigest())
    assert [path.name for path in home.iterdir()] == ["cifar-10-batches-py"]
    assert len(load_dataset(f"cifar10:{home}").fit) == 90
    with pytest.raises(DataError, match="cannot fetch"):
        cifar10.download(tmp_path / "other", url=(tmp_path / "none").as_uri())
