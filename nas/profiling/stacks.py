"""What a profile is measured on: short stacks of layers, as networks and their compressed variants have them.

A layer alone would be measured with its input and output brought into and out of our layout, and with all of a cache to
itself. So layers come in stacks of one and of several; the fit takes them apart again.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A module and its input, per image. kind : what it is there to tell about, one of `modeltree.layers.KINDS`."""

    name: str
    kind: str
    module: nn.Module
    input_shape: tuple[int, ...]


class Residual(nn.Module):
    """x + inner(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w), as it came."""
        return x + self.inner(x)


class Parallel(nn.Module):
    """The outputs of two modules, one behind the other along the channels."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) to more channels."""
        return torch.cat([self.one(x), self.other(x)], dim=1)


_SQUARE = ((16, 32), (32, 16), (64, 8), (64, 32), (128, 16), (256, 8), (512, 4), (512, 2), (256, 4), (96, 28), (64, 56))
"""(channels, side): what networks for small and for larger images have."""
_WIDENING = {
    3: ((3, 16, 32), (3, 64, 32), (64, 128, 16), (128, 256, 8), (256, 512, 4)),
    1: ((64, 256, 28), (512, 128, 4)),
}
_WIDE_KERNELS = {
    5: ((64, 192, 8), (32, 64, 14), (16, 16, 28), (96, 256, 8)),
    7: ((3, 32, 32), (16, 32, 16), (64, 64, 14)),
}
_STRIDED = ((3, 32, 64), (32, 64, 32), (64, 128, 16), (128, 256, 8))
_FC = ((512, 512), (512, 10), (1024, 512), (2048, 1024), (4096, 1024), (4096, 4096), (256, 128), (64, 10))
_DEPTHWISE = ((32, 32), (64, 32), (128, 16), (256, 8), (512, 4), (512, 2), (96, 28), (192, 14))


def stacks() -> list[Stack]:
    """All of them; weights are torch's initial ones, from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [*_convolutions(), *_depthwise(), *_linear(), *_glue(), *_composed()]


def _conv(cin: int, cout: int, k: int = 3, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Module:
    conv = nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups)
    return nn.Sequential(conv, nn.ReLU()) if act else conv


def _times(count: int, make: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(*[make() for _ in range(count)])


def _convolutions() -> Iterator[Stack]:
    for k in (1, 3):
        kind = f"conv{k}x{k}"
        for c, side in _SQUARE:
            for depth in (1, 4):
                module = _times(depth, lambda c=c, k=k: _conv(c, c, k))  # type: ignore[misc]
                yield Stack(
                    name=f"{depth} {kind} {c} {side}x{side}", kind=kind, module=module, input_shape=(c, side, side)
                )
        for cin, cout, side in _WIDENING[k]:
            module = _conv(cin, cout, k)
            yield Stack(
                name=f"{kind} {cin}>{cout} {side}x{side}", kind=kind, module=module, input_shape=(cin, side, side)
            )
    for c, side in ((16, 32), (64, 32), (128, 16)):
        module = nn.Sequential(_conv(c, 2 * c, 3, 2), _conv(2 * c, 2 * c))
        yield Stack(
            name=f"conv3x3 /2 {c}>{2 * c} {side}x{side}", kind="conv3x3", module=module, input_shape=(c, side, side)
        )
    for cin, cout, side in _STRIDED:
        module = _conv(cin, cout, 3, 2)
        yield Stack(
            name=f"conv3x3 /2 alone {cin}>{cout} {side}x{side}", kind="conv3x3", module=module,
            input_shape=(cin, side, side),
        )  # fmt: skip
    for k, shapes in _WIDE_KERNELS.items():
        kind = f"conv{k}x{k}"
        for cin, cout, side in shapes:
            module = nn.Sequential(_conv(cin, cout, k), _conv(cout, cout, 1))
            yield Stack(
                name=f"{kind} {cin}>{cout} {side}x{side}", kind=kind, module=module, input_shape=(cin, side, side)
            )


def _depthwise() -> Iterator[Stack]:
    for c, side in _DEPTHWISE:
        for depth in (1, 3):
            module = _times(depth, lambda c=c: nn.Sequential(_conv(c, c, 3, groups=c), _conv(c, c, 1)))  # type: ignore[misc]
            yield Stack(
                name=f"{depth} separable {c} {side}x{side}",
                kind="depthwise",
                module=module,
                input_shape=(c, side, side),
            )
        alone = _times(3, lambda c=c: _conv(c, c, 3, groups=c))  # type: ignore[misc]
        yield Stack(name=f"3 depthwise {c} {side}x{side}", kind="depthwise", module=alone, input_shape=(c, side, side))


def _linear() -> Iterator[Stack]:
    for cin, cout in _FC:
        yield Stack(name=f"fc {cin}>{cout}", kind="fc", module=nn.Linear(cin, cout), input_shape=(cin,))
    for widths in ((512, 512, 512, 10), (1024, 256, 1024, 10), (4096, 1024, 1024, 10)):
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
        name = "fc " + ">".join(map(str, widths))
        yield Stack(name=name, kind="fc", module=nn.Sequential(*layers), input_shape=(widths[0],))


def _glue() -> Iterator[Stack]:
    for c, side in ((32, 32), (64, 16), (128, 28), (256, 8)):
        shape = (c, side, side)
        pools = nn.Sequential(_conv(c, c, 1), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(2))
        yield Stack(name=f"3 pools {c} {side}x{side}", kind="pool", module=pools, input_shape=shape)
        mean = nn.Sequential(
            _conv(c, c, 1), nn.AvgPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10)
        )
        yield Stack(name=f"mean pools {c} {side}x{side}", kind="pool", module=mean, input_shape=shape)
        adds = _times(3, lambda c=c: Residual(_conv(c, c, 1, act=False)))  # type: ignore[misc]
        yield Stack(name=f"3 additions {c} {side}x{side}", kind="elementwise", module=adds, input_shape=shape)
        smooth = nn.Sequential(*[nn.Sequential(_conv(c, c, 1, act=False), nn.SiLU()) for _ in range(3)])
        yield Stack(name=f"3 silu {c} {side}x{side}", kind="elementwise", module=smooth, input_shape=shape)
        joined = _times(2, lambda c=c: Parallel(_conv(c, c // 2, 1), _conv(c, c // 2, 1)))  # type: ignore[misc]
        yield Stack(name=f"2 concatenations {c} {side}x{side}", kind="move", module=joined, input_shape=shape)
        flat = nn.Sequential(_conv(c, 16, 1), nn.Flatten(), nn.Linear(16 * side * side, 32))
        yield Stack(name=f"flatten {c} {side}x{side}", kind="move", module=flat, input_shape=shape)


def _composed() -> Iterator[Stack]:
    """Parts of networks, as compression techniques leave them."""
    for c, side in ((32, 16), (64, 32), (128, 16), (256, 8), (512, 4)):
        shape = (c, side, side)
        fire = nn.Sequential(_conv(c, c // 4, 1), Parallel(_conv(c // 4, c // 2, 1), _conv(c // 4, c // 2)))
        yield Stack(name=f"fire {c} {side}x{side}", kind="conv3x3", module=fire, input_shape=shape)
        thin = nn.Sequential(_conv(c, c // 4, 1, act=False), _conv(c // 4, c // 4, act=False), _conv(c // 4, c, 1))
        yield Stack(name=f"tucker {c} {side}x{side}", kind="conv3x3", module=thin, input_shape=shape)
        wide = nn.Sequential(_conv(c, 2 * c, 1), _conv(2 * c, 2 * c, groups=2 * c), _conv(2 * c, c, 1, act=False))
        yield Stack(name=f"inverted {c} {side}x{side}", kind="depthwise", module=wide, input_shape=shape)
    for width in (16, 32, 64):
        c, parts = 3, []
        for level in range(3):
            parts += [_conv(c, width << level), nn.MaxPool2d(2)]
            c = width << level
        chain = nn.Sequential(*parts, nn.Flatten(), nn.Linear(c * 16, 10))
        yield Stack(name=f"small network {width}", kind="conv3x3", module=chain, input_shape=(3, 32, 32))
