"""CIFAR-10 in its official files, python or binary version, without trusting a pickle."""

import hashlib
import pickle
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path

import numpy as np

from modeltree.errors import DataError
from modeltree.files import written_whole
from nas.data.dataset import Dataset, ImageSet
from nas.data.split import stratified

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
SEARCH = 5000

_PYTHON, _BINARY = "cifar-10-batches-py", "cifar-10-batches-bin"
_PIXELS = 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{k}" for k in range(1, 6))


def load(folder: Path, *, seed: int) -> Dataset:
    """Read the official batches in `folder` or one level below; `search` is a stratified 5000 of the training images.

    Raises
    ------
    DataError : no batches there, or files that are not what they must be.
    """
    home = _find(folder)
    train, test = _read(home, _TRAIN), _read(home, ("test_batch",))
    fit, search = stratified(train.labels, min(SEARCH, len(train) // 10), np.random.default_rng(seed))
    return Dataset(
        name="cifar10",
        classes=CLASSES,
        mean=MEAN,
        std=STD,
        fit=ImageSet(images=train.images[fit], labels=train.labels[fit]),
        search=ImageSet(images=train.images[search], labels=train.labels[search]),
        test=test,
        flip=True,
    )


def _find(folder: Path) -> Path:
    for home in (folder, folder / _PYTHON, folder / _BINARY):
        if (home / "test_batch").is_file() or (home / "test_batch.bin").is_file():
            return home
    raise DataError(
        f"no CIFAR-10 batches in {folder}: it must hold {_PYTHON} or {_BINARY}; "
        f"fetch them with --data 'cifar10:{folder}?download', or use imagefolder:DIR for class folders"
    )


def _read(home: Path, names: tuple[str, ...]) -> ImageSet:
    """Batches of (n, 3072) pixels, channel by channel, one under the other."""
    binary = (home / "test_batch.bin").is_file()
    read = [_read_binary(home / f"{name}.bin") if binary else _read_python(home / name) for name in names]
    images = np.concatenate([pixels for pixels, _ in read]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in read]).astype(np.int64)
    if not np.isin(labels, range(len(CLASSES))).all():
        raise DataError(f"labels in {home} go from {labels.min()} to {labels.max()} but must be 0..9: fetch it again")
    return ImageSet(images=images, labels=labels)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}: fetch CIFAR-10 again") from error


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Records of one label byte and 3072 pixels."""
    data = np.frombuffer(_bytes(path), np.uint8)
    if not data.size or data.size % (1 + _PIXELS):
        raise DataError(f"{path} has {data.size} bytes but must have a multiple of {1 + _PIXELS}: fetch it again")
    records = data.reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0]


class _Stand:
    """Takes the place of whatever numpy object a pickle asks for and only remembers what it was given."""

    def __init__(self, *args: object) -> None:
        self.args = args
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


_NUMPY = {
    (module, name)
    for module, name in (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    )
}


class _PlainUnpickler(pickle.Unpickler):
    """Builds plain containers and `_Stand`s; no name from the file is ever imported or called."""

    def find_class(self, module: str, name: str) -> type[_Stand]:
        if (module, name) in _NUMPY:
            return _Stand
        raise pickle.UnpicklingError(f"asks for {module}.{name}")


def _read_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A pickled dict with `data`, an (n, 3072) uint8 array, and `labels`, a list of n integers."""
    try:
        with path.open("rb") as file:
            batch = _PlainUnpickler(file, encoding="bytes").load()
        array, labels = batch[b"data"], batch[b"labels"]
        _, shape, dtype, is_fortran, raw = array.state
        if dtype.args[0] not in (b"u1", "u1") or shape[1:] != (_PIXELS,) or len(labels) != shape[0]:
            raise ValueError(f"data is {dtype.args[0]!r} {shape} with {len(labels)} labels")
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if is_fortran else "C"), np.array(labels, np.int64)
    except Exception as error:  # a hostile pickle can raise anything
        raise DataError(f"{path} is not a CIFAR-10 batch ({error}): fetch CIFAR-10 again") from error


def download(folder: Path, *, url: str = URL, md5: str = MD5) -> None:
    """Fetch and unpack the python version into `folder`; nothing to do where it is already.

    Raises
    ------
    DataError : no connection, or an archive with another MD5 than the official one.
    """
    if (folder / _PYTHON / "test_batch").is_file():
        return
    archive = folder / "cifar-10-python.tar.gz"
    try:
        with urllib.request.urlopen(url, timeout=60) as reply, written_whole(archive) as part, part.open("wb") as file:
            shutil.copyfileobj(reply, file)
    except OSError as error:
        raise DataError(f"cannot fetch {url}: {error}: check the connection or copy {_PYTHON} to {folder}") from error
    try:
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != md5:
            raise DataError(f"{url} has MD5 {found} but must have {md5}: fetch it again")
        with tarfile.open(archive) as tar, tempfile.TemporaryDirectory(dir=folder) as unpacked:
            tar.extractall(unpacked, filter="data")
            Path(unpacked, _PYTHON).replace(folder / _PYTHON)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"cannot unpack {archive}: {error}: free some space and try again") from error
    finally:
        archive.unlink(missing_ok=True)
