"""A full disk is one error in words, whoever writes."""

import resource

import pytest
import torch

from modeltree.errors import DataError
from nas.bases import load_weights_, save_weights
from nas.jobs.checkpoint import load_state, save_state


@pytest.fixture
def small_files():
    """No file may grow beyond 4 kB: as good as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "state": lambda path: save_state(path, {"weights": torch.zeros(10_000)}),
    "weights": lambda path: save_weights(torch.nn.Linear(100, 100), path),
}


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_told_in_words_and_leaves_the_old_file(tmp_path, what):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(DataError, match=r"cannot write .*file: .*free some space"):
        WRITERS[what](path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_comes_back(tmp_path):
    state = {"weights": torch.arange(5.0), "done": 7, "deep": {"names": ["a", "b"]}}
    save_state(tmp_path / "state", state)
    found = load_state(tmp_path / "state")
    assert torch.equal(found.pop("weights"), state.pop("weights"))
    assert found == state
    one, two = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    save_weights(one, tmp_path / "w.safetensors")
    load_weights_(two, tmp_path / "w.safetensors")
    assert torch.equal(one.weight, two.weight)
