"""Networks of torchvision and timm as bases."""

import importlib.util

import pytest
import torch

from modeltree.errors import ConfigError
from nas.bases import build

KNOWN = {"torchvision": "squeezenet1_1", "timm": "mobilenetv3_small_050"}


@pytest.mark.parametrize("package", KNOWN)
def test_a_network_of_a_package_fits_the_data_and_depends_on_the_seed_alone(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install --no-deps {package}")
    first, again, other = (
        build(f"{package}:{KNOWN[package]}", num_classes=7, image_size=64, seed=seed).eval() for seed in (1, 1, 2)
    )
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert first(x).shape == (1, 7)
        assert torch.equal(first(x), again(x))
        assert not torch.equal(first(x), other(x))


@pytest.mark.parametrize("package", KNOWN)
def test_a_package_that_is_not_installed_says_how_to_get_it(package, monkeypatch):
    monkeypatch.setattr("nas.bases.packages.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"{package}, which is not installed: pip install"):
        build(f"{package}:resnet18", num_classes=10, image_size=64)


@pytest.mark.parametrize("package", KNOWN)
def test_a_network_that_a_package_does_not_have_is_named(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install --no-deps {package}")
    with pytest.raises(ConfigError, match=f"{package} cannot make 'no_such_network'"):
        build(f"{package}:no_such_network", num_classes=10, image_size=64)
