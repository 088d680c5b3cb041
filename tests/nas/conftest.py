"""Calling `nas` in this process."""

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
        told = capsys.readouterr()
        return ended.value.code or 0, told.out, told.err.splitlines()

    return call
