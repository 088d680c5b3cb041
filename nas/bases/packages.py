"""Networks of torchvision and timm, where they are installed: `torchvision:resnet18`, `timm:deit_tiny_patch16_224`."""

import importlib
import importlib.util
import warnings
from typing import Any

import torch
from torch import nn

from modeltree.errors import ConfigError

PACKAGES = ("torchvision", "timm")
"""What stands before the colon."""

_NATIVE = ("nms", "qnms")
"""Operators of torchvision's own library that its Python part describes, and that no classifier uses."""


def from_package(spec: str, *, num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """The network called `package:name`, with random weights.

    Raises
    ------
    ConfigError : the package is not installed or cannot be imported, or has no such network for such images.
    """
    package, _, name = spec.partition(":")
    try:
        return _MAKERS[package](_imported(package, spec), name, num_classes, shape)
    except ConfigError:
        raise
    except Exception as error:  # factories raise many unrelated types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{package} cannot make {name!r}: {reason}: name one of its classifiers") from error


def _imported(package: str, spec: str) -> Any:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{spec} needs {package}, which is not installed: pip install --no-deps {package}")
    _describe_native()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torchvision.models" if package == "torchvision" else package)


def _describe_native() -> None:
    """torchvision refuses to be imported where its native library does not load beside a torch without CUDA."""
    if importlib.util.find_spec("torchvision") is None or hasattr(torch.ops.torchvision, _NATIVE[0]):
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in _NATIVE:
            library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        _KEPT.append(library)


_KEPT: list[Any] = []
"""torch forgets operators whose library is no longer held."""


def _torchvision(models: Any, name: str, num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    if shape[0] != 3:
        raise ConfigError(f"torchvision's networks take 3 channels, not {shape[0]}: pass --channels RGB or timm:name")
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": False}
    if name.startswith("vit_"):
        options["image_size"] = _square(shape, name)
    network: nn.Module = models.get_model(name, **options)
    return network


def _square(shape: tuple[int, int, int], name: str) -> int:
    if shape[1] != shape[2]:
        raise ConfigError(f"{name} takes squares, not {shape[2]}x{shape[1]}: pass one number as --image-size")
    return shape[1]


def _timm(timm: Any, name: str, num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=shape[0])
    return network


_MAKERS = {"torchvision": _torchvision, "timm": _timm}
