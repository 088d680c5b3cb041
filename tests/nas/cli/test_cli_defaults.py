"""`nas search` with nothing said searches what `SearchConfig()` says."""

import sys
from types import SimpleNamespace

import pytest

import nas.search
from nas.cli import main
from nas.config import SearchConfig


@pytest.fixture
def configured(monkeypatch, tmp_path):
    """The config, and the rest, that a command line comes to."""
    calls = []

    def search(config, out, **rest):
        calls.append((config, out, rest))
        return SimpleNamespace(summary={})

    monkeypatch.setattr(nas.search, "search", search)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["nas", "search", *words, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return calls[-1]

    return run


def test_every_default_of_the_command_line_is_the_configs(configured):
    config, folder, rest = configured()
    assert config == SearchConfig(workers=config.workers)  # as many as this machine has cores
    assert config.workers >= 1
    assert folder.as_posix() == "runs/vgg11-wifi_edge-zero2w_ncnn_1t-0"
    assert rest["resume"] is False


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (("--K", "3", "--N", "4"), {"K": 3, "N": 4}),
        (("--method", "surgery", "--method", "tree"), {"methods": ("surgery", "tree")}),
        (("--technique", "svd"), {"techniques": ("svd",)}),
        (("--bits", "4,8", "--bottleneck", "0.25"), {"bits": (4, 8), "bottleneck": (0.25,)}),
        (
            ("--no-pool", "--no-boosting", "--no-fair-chances"),
            {"pool": False, "boosting": False, "fair_chances": False},
        ),
        (("--energy-mj", "5", "--finetune-steps", "0"), {"energy_mj": 5.0, "finetune_steps": 0}),
        (("--single-root", "--forks", "markov"), {"single_root": True, "forks": "markov"}),
        (("--distillation", "branch", "--seed", "7"), {"distillation": "branch", "seed": 7}),
    ],
)
def test_an_option_changes_its_own_setting_and_no_other(configured, words, changed):
    config, _, _ = configured(*words)
    assert config == SearchConfig(**changed, workers=config.workers)
