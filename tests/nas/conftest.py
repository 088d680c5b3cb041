"""Calling `nas` in this process, and torch in one thread."""

import sys

import pytest

from nas.cli import main


@pytest.fixture
def nas(monkeypatch, capsys, tmp_path):
    """Run `nas` in this process; returns (status, standard output, lines on standard error)."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["nas", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err.splitlines()

    return call


@pytest.fixture
def one_thread():
    """Torch computes in one thread: the networks are tiny, and the machine is shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
