"""Small networks of every form a cut or a compression meets; (batch, 3, 8, 8) -> (batch, 5) unless said."""

import functools

import torch
from torch import nn

from transforms import Network, analyse, export

INPUT = (3, 8, 8)


class Chain(nn.Sequential):
    """Convolutions with batch norm, pools, a classifier of two layers on 2x2 maps."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(), nn.Linear(16 * 4, 12), nn.ReLU(),
            nn.Linear(12, 5),
        )  # fmt: skip


class Block(nn.Module):
    """relu(x + conv(relu(conv(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.two(torch.relu(self.one(x))))


class Residual(nn.Sequential):
    """A stem, two residual blocks, global average pooling, a classifier."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), Block(6), Block(6),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
        )  # fmt: skip


class Dense(nn.Module):
    """DenseNet: every layer reads all before it; then a transition."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.transition = nn.Conv2d(15, 6, 1)
        self.classifier = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.cat([x, torch.relu(layer(x))], 1)
        return self.classifier(torch.relu(self.transition(x)).mean((2, 3)))


class Inception(nn.Module):
    """Three branches side by side, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(c, 4, 1), nn.Conv2d(c, 4, 3, padding=1), nn.Conv2d(c, 4, 5, padding=2)])
            for c in (3, 12)
        )
        self.classifier = nn.Linear(12 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for branches in self.branches:
            x = torch.cat([torch.relu(branch(x)) for branch in branches], 1)
        return self.classifier(nn.functional.max_pool2d(x, 2).flatten(1))


class Mixed(nn.Module):
    """Residual additions, concatenations, a split and depthwise convolutions together; a reshape by x.size(0)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.expand = nn.Conv2d(8, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project = nn.Conv2d(16, 8, 1)
        self.side = nn.Conv2d(4, 4, 3, padding=1)
        self.down = nn.Conv2d(16, 8, 3, stride=2, padding=1)
        self.hidden = nn.Linear(8 * 4 * 4, 12)
        self.classifier = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.project(torch.relu(self.depthwise(torch.relu(self.expand(x)))))
        left, right = x.chunk(2, 1)
        x = torch.cat([torch.relu(self.side(left)), right, x], 1)
        x = torch.relu(self.down(x))
        x = torch.relu(self.hidden(x.view(x.size(0), -1)))
        return self.classifier(x)


class Layer(nn.Module):
    """A layer of a transformer, of 4 heads of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.behind = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.mix, self.one, self.two = (nn.Linear(*s) for s in ((16, 48), (16, 16), (16, 64), (64, 16)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, _ = x.shape
        q, k, v = self.qkv(self.before(x)).reshape(n, tokens, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        seen = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, 16)
        x = x + self.mix(seen)
        return x + self.two(nn.functional.gelu(self.one(self.behind(x))))


class Transformer(nn.Module):
    """Patches as tokens, a layer, the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer, self.head = nn.Conv2d(3, 16, 4, 4), Layer(), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


NETWORKS = {"chain": Chain, "residual": Residual, "dense": Dense, "inception": Inception, "mixed": Mixed}


def settled(model: nn.Module) -> nn.Module:
    """The model at inference with running statistics and scales of its batch norms far from their defaults."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                for tensor in (module.running_mean, module.bias):
                    if tensor is not None:
                        tensor.copy_(torch.randn(tensor.shape, generator=generator) / 3)
                for tensor in (module.running_var, module.weight):
                    if tensor is not None:
                        tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.eval()


@functools.cache
def model(name: str) -> nn.Module:
    """One network of each kind, made once; nobody may change it."""
    torch.manual_seed(0)
    return settled(NETWORKS[name]())


@functools.cache
def network(name: str) -> Network:
    """The same, analysed."""
    return analyse(export(model(name), INPUT))


def images(count: int = 3, shape: tuple[int, ...] = INPUT, seed: int = 7) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def of(module: nn.Module, shape: tuple[int, ...] = INPUT) -> Network:
    torch.manual_seed(0)
    return analyse(export(module, shape))


def run(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return module(x)


def assert_parts_make_the_whole(net: Network, module: nn.Module, shape: tuple[int, ...] = INPUT) -> None:
    """For every place p: [0, p) then [p, end) is the network; and so is every segment after the other."""
    last = len(net.spec.places) - 1
    x = images(3, shape)
    wanted = run(module.eval(), x)
    for place in net.spec.places:
        crossing = run(net.between(0, place.index), x)
        assert crossing.shape == (3, *place.shape)
        torch.testing.assert_close(run(net.between(place.index, last), crossing), wanted, rtol=1e-4, atol=1e-5)
    value = x
    for start in range(last):
        value = run(net.between(start, start + 1), value)
    torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)
