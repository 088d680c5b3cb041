"""Networks of one idea each, for every operator a block may hold and every layout it may meet."""

import torch
import torch.nn.functional as F
from operator_cases import Case, after, cat, conv, conv1, conv3, of
from torch import nn

CONVOLUTIONS = {
    "1x1": conv((10, 7, 9), 45, 1),
    "1x1 on a map of 1x1": conv((45, 1, 1), 10, 1),
    "1x1 on a wide map of one row": conv((16, 1, 33), 16, 1),
    "1x1 with stride 2": conv((16, 9, 9), 32, 1, stride=2),
    "1x1 with padding": conv((16, 5, 5), 16, 1, padding=1),
    "1x1 after 1x1": conv((48, 6, 6), 32, 1, head=True),
    "3x3 on an image": conv((3, 13, 11), 10, 3, padding=1),
    "3x3 without bias": conv((16, 8, 8), 32, 3, padding=1, bias=False),
    "3x3 without padding": conv((45, 6, 7), 16, 3),
    "3x3 after 1x1": conv((45, 6, 7), 20, 3, padding=1, head=True),
    "3x3 on one number": conv((16, 1, 1), 16, 3, padding=1),
    "3x3 on 2x2": conv((64, 2, 2), 64, 3, padding=1),
    "3x3 with stride 2": conv((16, 9, 10), 45, 3, stride=2, padding=1),
    "3x3 with stride 2 and 1": conv((16, 9, 10), 16, 3, stride=(2, 1), padding=1),
    "3x3 with dilation 2": conv((16, 9, 9), 16, 3, padding=2, dilation=2),
    "3x3 with dilation 2 and 3": conv((3, 11, 11), 16, 3, padding=(2, 3), dilation=(2, 3)),
    "3x3 with padding beyond its reach": conv((16, 4, 4), 16, 3, padding=3),
    "5x5": conv((3, 9, 9), 20, 5, padding=2),
    "7x7 with stride 4": conv((3, 23, 23), 16, 7, stride=4, padding=3),
    "11x11 with stride 4": conv((3, 32, 32), 16, 11, stride=4, padding=2),
    "1x7": conv((16, 5, 9), 16, (1, 7), padding=(0, 3)),
    "5x3 with stride 1 and 2": conv((10, 9, 9), 16, (5, 3), stride=(1, 2), padding=(2, 0)),
    "2x2 same": conv((16, 5, 5), 16, 2, padding="same"),
    "4x4 same": conv((3, 5, 5), 16, 4, padding="same", head=True),
    "one output channel": conv((16, 5, 5), 1, 3, padding=1),
    "one input channel": conv((1, 5, 5), 16, 3, padding=1),
    "the whole map": conv((32, 4, 4), 30, 4),
    "zeros on two sides": Case(
        shape=(16, 6, 6), make=lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(16, 16, 3))
    ),
    "reflected edges": Case(
        shape=(16, 6, 6), make=lambda: nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect")
    ),
}  # fmt: skip

GROUPED = {
    "2 groups": conv((32, 7, 7), 64, 3, padding=1, groups=2),
    "2 groups of 5": conv((10, 7, 7), 20, 3, padding=1, groups=2),
    "6 groups of 8": conv((48, 7, 7), 48, 3, padding=1, groups=6),
    "13 groups of 8 with stride 2": conv((104, 9, 7), 104, 3, stride=2, padding=1, groups=13, head=True),
    "8 groups of 4, 5x5": conv((32, 7, 7), 32, 5, padding=2, groups=8),
    "10 groups of 2": conv((20, 7, 7), 20, 3, padding=1, groups=10),
    "30 groups of 2 and 3": conv((60, 5, 5), 90, 3, padding=1, groups=30),
    "30 groups after 1x1": conv((60, 5, 5), 90, 3, padding=1, groups=30, head=True),
    "4 groups on a map of 1x1": conv((48, 1, 1), 24, 1, groups=4),
    "3 groups on an image": conv((3, 8, 8), 12, 3, padding=1, groups=3),
    "multiplier 2": conv((20, 7, 7), 40, 3, padding=1, groups=20),
    "multiplier 2, 7x7 with stride 2": conv((48, 11, 9), 96, 7, stride=2, padding=3, groups=48, head=True),
    "multiplier 4 of groups of 2": conv((16, 7, 7), 64, 3, padding=1, groups=8),
    "depthwise": conv((20, 7, 9), 20, 3, padding=1, groups=20),
    "depthwise on an image": conv((3, 7, 9), 3, 3, padding=1, groups=3),
    "depthwise after 1x1": conv((45, 7, 9), 45, 3, padding=1, groups=45, head=True),
    "depthwise with stride 2": conv((32, 9, 9), 32, 3, stride=2, padding=1, groups=32, head=True),
    "depthwise 5x5 with stride 2": conv((16, 11, 9), 16, 5, stride=2, padding=2, groups=16),
    "depthwise with dilation 2": conv((16, 9, 9), 16, 3, padding=2, dilation=2, groups=16),
    "depthwise 1x1": conv((16, 3, 3), 16, 1, groups=16),
    "depthwise on one number": conv((16, 1, 1), 16, 3, padding=1, groups=16),
    "depthwise wider than the registers": conv((16, 3, 70), 16, 3, padding=1, groups=16),
}


DENSE = {
    "linear": Case(shape=(45,), make=lambda: nn.Linear(45, 10)),
    "linear without bias": Case(shape=(64,), make=lambda: nn.Linear(64, 32, bias=False)),
    "linears": Case(shape=(30,), make=lambda: nn.Sequential(nn.Linear(30, 65), nn.ReLU(), nn.Linear(65, 3))),
    "linear on features that fill vectors": Case(
        shape=(64,), make=lambda: nn.Sequential(nn.ReLU(), nn.Linear(64, 48), nn.Tanh())
    ),
    "linear on a map": Case(shape=(3, 5, 5), make=lambda: nn.Sequential(nn.Flatten(), nn.Linear(75, 10))),
    "linear on maps with padding channels": after(nn.ReLU, nn.Flatten, lambda: nn.Linear(20 * 64, 10)),
    "linear on the last axis of a map": Case(shape=(4, 5, 6), make=lambda: nn.Linear(6, 7)),
    "linear on a sequence": Case(shape=(5, 6), make=lambda: nn.Linear(6, 7)),
    "linear plus its input": of(lambda x, a: x + a(x), shape=(64,), a=lambda: nn.Linear(64, 64)),
    "linear plus an odd input": of(lambda x, a: torch.relu(a(x) + x), shape=(45,), a=lambda: nn.Linear(45, 45)),
}

POOLS = {
    "max 2x2 behind a convolution": after(nn.ReLU, lambda: nn.MaxPool2d(2)),
    "max 2x2 then padding": after(nn.ReLU, lambda: nn.MaxPool2d(2), conv3()),
    "max 2x2 on odd sides": after(nn.ReLU, lambda: nn.MaxPool2d(2), shape=(3, 9, 7)),
    "max 2x2 on odd sides with ceil": after(lambda: nn.MaxPool2d(2, ceil_mode=True), shape=(3, 9, 7)),
    "max 3x3 with stride 2 and ceil": after(lambda: nn.MaxPool2d(3, 2, ceil_mode=True), shape=(3, 10, 8)),
    "max 3x3 with padding": after(lambda: nn.MaxPool2d(3, 2, padding=1), conv3()),
    "max 3x3 with padding and ceil": after(lambda: nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), shape=(3, 10, 9)),
    "max 3x2": after(lambda: nn.MaxPool2d((3, 2), (1, 2), padding=(1, 0))),
    "max with dilation": after(lambda: nn.MaxPool2d(2, 1, dilation=2)),
    "max on the input": Case(shape=(20, 7, 7), make=lambda: nn.MaxPool2d(3, 2, padding=1)),
    "max on the input 1x1": Case(shape=(32, 1, 1), make=lambda: nn.MaxPool2d(1)),
    "max 2x2 behind depthwise": after(
        lambda: nn.Conv2d(20, 20, 3, padding=1, groups=20), nn.ReLU, lambda: nn.MaxPool2d(2)
    ),
    "max 2x2 behind a sum": of(lambda x, a: F.max_pool2d(torch.relu(x + a(x)), 2), a=conv3()),
    "max 2x2 of what others read": of(
        lambda x, a, b: F.max_pool2d(a(x), 2) + b(a(x)), a=conv3(), b=lambda: nn.Conv2d(20, 20, 2, 2)
    ),
    "max then relu": after(lambda: nn.MaxPool2d(2), nn.ReLU, conv3()),
    "average 2x2": after(lambda: nn.AvgPool2d(2)),
    "average 3x3 with padding": after(lambda: nn.AvgPool2d(3, 2, padding=1)),
    "average 3x3 of what is there": after(lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)),
    "average with ceil": after(lambda: nn.AvgPool2d(3, 2, ceil_mode=True), shape=(3, 10, 8)),
    "average with padding and ceil": after(lambda: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), shape=(3, 10, 8)),
    "average with ceil of what is there": after(
        lambda: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False), shape=(3, 10, 8)
    ),
    "average then steps": after(lambda: nn.AvgPool2d(2), nn.Sigmoid, conv3()),
    "global average": after(lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten, lambda: nn.Linear(20, 10)),
    "global maximum": of(lambda x, a: F.max_pool2d(a(x), 6).flatten(1), a=conv3()),
    "mean over the map": of(lambda x, a: a(x).mean((2, 3)), a=conv3()),
    "mean over the map, kept": of(lambda x, a, b: b(a(x).mean((-1, -2), keepdim=True)), a=conv3(), b=conv1()),
    "mean over rows": of(lambda x, a: a(x).mean(2), a=conv3()),
    "mean over channels": of(lambda x, a: a(x).mean(1, keepdim=True), a=conv3()),
    "adaptive average to 3x3": after(lambda: nn.AdaptiveAvgPool2d(3), shape=(3, 9, 6)),
    "adaptive average to 3x3 of unlike windows": after(lambda: nn.AdaptiveAvgPool2d(3)),
    "adaptive average to more": after(lambda: nn.AdaptiveAvgPool2d(7), shape=(3, 4, 4)),
    "adaptive average to one column": after(lambda: nn.AdaptiveAvgPool2d((None, 1))),
}

ACTIVATIONS = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "silu": nn.SiLU,
    "hardswish": nn.Hardswish, "hardsigmoid": nn.Hardsigmoid, "gelu": nn.GELU,
    "gelu by tanh": lambda: nn.GELU(approximate="tanh"), "leaky relu": lambda: nn.LeakyReLU(0.2),
    "hardtanh": lambda: nn.Hardtanh(-0.5, 2), "elu": nn.ELU, "softplus": nn.Softplus, "mish": nn.Mish,
    "prelu": lambda: nn.PReLU(), "log sigmoid": nn.LogSigmoid, "softsign": nn.Softsign,
}  # fmt: skip

ELEMENTWISE = {
    **{
        name: Case(shape=(20, 3, 5), make=lambda make=make: nn.Sequential(nn.Conv2d(20, 20, 1), make()), reach=60.0)
        for name, make in ACTIVATIONS.items()
    },
    "sigmoid on its own": Case(shape=(20, 3, 5), make=nn.Sigmoid, reach=60.0),
    "negative": of(lambda x, a: -a(x), a=conv3()),
    "clamp from below": of(lambda x, a: a(x).clamp(min=0.1), a=conv3()),
    "clamp from above": of(lambda x, a: a(x).clamp(max=0.1), a=conv3()),
    "numbers before and behind": of(lambda x, a: 2 - 3 * a(x) / 4 + 1, a=conv3()),
    "one over": of(lambda x, a: 1 / (a(x).abs() + 1), a=conv3()),
    "square": of(lambda x, a: a(x) * a(x), a=conv3()),
    "square of the input": of(lambda x: x * x),
    "twice the input": of(lambda x: x + x),
    "power and root": of(lambda x, a: (a(x) ** 2 + 1).sqrt(), a=conv3()),
    "steps on features that fill vectors": of(lambda x: torch.relu(x) * 2 + 1, shape=(64,)),
    "steps on odd features": of(lambda x: torch.relu(x) * 2 + 1, shape=(45,)),
    "steps on a vector in a map": of(lambda x: torch.relu(x) * 2 + 1, shape=(64, 1, 1)),
    "steps on a flattened map": of(lambda x: torch.sigmoid(x.flatten(1)), shape=(4, 4, 4)),
    "steps on a sequence": of(lambda x: torch.relu(x) * 2 + 1, shape=(4, 5)),
    "residual": of(lambda x, a: torch.relu(x + a(x)), a=conv3()),
    "residual, other way round": of(lambda x, a: torch.relu(a(x) + x), a=conv3()),
    "residual of two convolutions": of(lambda x, a, b: torch.relu(a(x) + b(x)), a=conv3(), b=conv1()),
    "residual of two pools": of(lambda x, a: F.max_pool2d(a(x), 2) + F.avg_pool2d(x, 2), a=conv3()),
    "residual chain": of(
        lambda x, a, b, c: c(torch.relu(b(y := torch.relu(a(x))) + y)) + x, a=conv3(), b=conv3(), c=conv3()
    ),
    "difference": of(lambda x, a: x - a(x), a=conv3()),
    "difference, other way round": of(lambda x, a: a(x) - x, a=conv3()),
    "product of two maps": of(lambda x, a, b: torch.sigmoid(a(x)) * b(x), a=conv3(), b=conv1()),
    "largest and smallest": of(
        lambda x, a, b: torch.maximum(a(x), b(x)) + torch.minimum(a(x), x), a=conv3(), b=conv1()
    ),
    "residual into depthwise": of(
        lambda x, a, b: b(x + a(x)), a=conv3(), b=lambda: nn.Conv2d(20, 20, 3, padding=1, groups=20)
    ),
    "depthwise plus its input": of(lambda x, a: a(x) + x, a=lambda: nn.Conv2d(20, 20, 3, padding=1, groups=20)),
    "operand with a halo": of(lambda x, a, b, c: c(y := a(x)) + b(y), a=conv3(), b=conv1(), c=conv3()),
    "batch norm alone": Case(shape=(20, 5, 5), make=lambda: nn.BatchNorm2d(20)),
    "batch norm first": Case(
        shape=(20, 5, 5), make=lambda: nn.Sequential(nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 16, 3, padding=1))
    ),
    "batch norm behind a pool": after(lambda: nn.MaxPool2d(2), lambda: nn.BatchNorm2d(20), nn.ReLU, conv3()),
    "batch norm behind relu": after(nn.ReLU, lambda: nn.BatchNorm2d(20), conv3()),
    "batch norm behind depthwise": after(
        lambda: nn.Conv2d(20, 20, 3, groups=20, bias=False), lambda: nn.BatchNorm2d(20)
    ),
    "batch norm without affine": after(lambda: nn.BatchNorm2d(20, affine=False)),
    "batch norm of a sum": of(lambda x, a, b: b(x + a(x)), a=conv3(), b=lambda: nn.BatchNorm2d(20)),
    "layer norm": Case(shape=(20, 4, 4), make=lambda: nn.LayerNorm([20, 4, 4])),
    "group norm": after(lambda: nn.GroupNorm(4, 20)),
    "squeeze and excitation": of(
        lambda x, a, b: x * torch.sigmoid(b(torch.relu(a(x.mean((2, 3), keepdim=True))))),
        a=conv1(20, 8),
        b=conv1(8, 20),
    ),
    "squeeze and excitation with linears": of(
        lambda x, c, a, b: c(x) * torch.sigmoid(b(torch.relu(a(x.mean((2, 3))))))[:, :, None, None],
        c=conv3(),
        a=lambda: nn.Linear(20, 8),
        b=lambda: nn.Linear(8, 20),
    ),
    "attention over the map": of(lambda x, a: x * torch.sigmoid(a(x)), a=conv1(20, 1)),
    "a map times a number an image": of(lambda x: x * x.mean((1, 2, 3), keepdim=True)),
}


def heads(x: torch.Tensor) -> torch.Tensor:
    """Maps of 20 channels as 5 heads of 64 tokens."""
    return x.reshape(-1, 5, 4, 64).transpose(2, 3)


def distances() -> torch.Tensor:
    """Rows and columns between any two of 8x8 tokens, as one number."""
    rows, columns = torch.arange(64) // 8, torch.arange(64) % 8
    return (rows[:, None] - rows).abs() * 8 + (columns[:, None] - columns).abs()


SHAPES = {
    "nothing": of(lambda x: x),
    "nothing on features": of(lambda x: x, shape=(20,)),
    "dropout only": Case(shape=(20, 3, 3), make=nn.Dropout),
    "flatten only": Case(shape=(20, 3, 3), make=nn.Flatten),
    "flatten of blocks": after(nn.ReLU, nn.Flatten),
    "flatten and steps": after(nn.Flatten, nn.ReLU, shape=(3, 4, 4)),
    "reshape to another map": of(lambda x, a: a(x).reshape(-1, 5, 12, 12), a=conv3()),
    "reshape and convolution": of(lambda x, a, b: b(a(x).reshape(-1, 5, 12, 12)), a=conv3(), b=conv3(5, 16)),
    "features to a map": of(
        lambda x, a, b: b(a(x).view(-1, 4, 4, 4)), shape=(30,), a=lambda: nn.Linear(30, 64), b=conv3(4, 16)
    ),
    "channels into the batch": of(
        lambda x, a, b: b(a(x).reshape(-1, 1, 6, 6)).reshape(-1, 20, 6, 6), a=conv3(), b=conv3(1, 1)
    ),
    "transpose of the map": of(lambda x, a, b: b(a(x).transpose(2, 3)), a=conv3(), b=conv3()),
    "batch behind": of(lambda x, a: (a(x).permute(1, 0, 2, 3) * 2).permute(1, 0, 2, 3), a=conv3()),
    "features before the batch": of(
        lambda x, a: (torch.relu(a(x).t()) + 1).t(), shape=(30,), a=lambda: nn.Linear(30, 20)
    ),
    "channels last": of(lambda x, a: a(x).permute(0, 2, 3, 1), a=conv3()),
    "channel shuffle": of(
        lambda x, a, b: b(a(x).view(-1, 4, 5, 6, 6).transpose(1, 2).reshape(-1, 20, 6, 6)), a=conv3(), b=conv3()
    ),
    "pixel shuffle": after(lambda: nn.PixelShuffle(2), shape=(3, 4, 4)),
    "softmax": of(lambda x, a: a(x).softmax(1), shape=(30,), a=lambda: nn.Linear(30, 20)),
    "softmax plus features": of(lambda x, a: x + a(x).softmax(1), shape=(64,), a=lambda: nn.Linear(64, 64)),
    "softmax over channels": of(lambda x, a, b: b(a(x).softmax(1)), a=conv3(), b=conv3()),
    "every second channel": of(lambda x, a, b: b(a(x)[:, ::2]), a=conv3(), b=conv3(10, 8)),
    "every second row": of(lambda x, a, b: b(a(x)[:, :, ::2, 1:]), a=conv3(), b=conv3()),
    "chunks": of(lambda x, a, b: cat(b(a(x).chunk(2, 1)[0]), a(x).chunk(2, 1)[1]), a=conv3(), b=conv3(10, 8)),
    "nearest upsampling": after(lambda: nn.Upsample(scale_factor=2), conv3()),
    "bilinear upsampling": after(lambda: nn.Upsample(scale_factor=2, mode="bilinear"), conv3()),
    "transposed convolution": after(lambda: nn.ConvTranspose2d(20, 8, 2, 2)),
    "concatenation": of(lambda x, a, b: cat(a(x), b(x)), a=conv3(20, 16), b=conv1(20, 32)),
    "concatenation of odd parts": of(
        lambda x, a, b, c: c(cat(a(x), b(x))), a=conv3(20, 5), b=conv1(20, 19), c=conv3(24, 16)
    ),
    "concatenation and pool": of(
        lambda x, a, b: F.max_pool2d(cat(torch.relu(a(x)), b(x)), 2), a=conv3(20, 5), b=conv1(20, 19)
    ),
    "concatenation and depthwise": of(
        lambda x, a, b, c: c(cat(a(x), b(x))),
        a=conv3(20, 5),
        b=conv1(20, 19),
        c=lambda: nn.Conv2d(24, 24, 3, padding=1, groups=24),
    ),
    "concatenation and groups": of(
        lambda x, a, b, c: c(cat(a(x), b(x))),
        a=conv3(20, 5),
        b=conv1(20, 19),
        c=lambda: nn.Conv2d(24, 36, 3, padding=1, groups=12),
    ),
    "concatenation and linear": of(
        lambda x, a, b, c: c(cat(a(x), b(x)).flatten(1)),
        a=conv3(20, 5),
        b=conv1(20, 19),
        c=lambda: nn.Linear(24 * 36, 7),
    ),
    "concatenation plus a map": of(
        lambda x, a, b, c: cat(a(x), b(x)) + c(x), a=conv3(20, 5), b=conv1(20, 19), c=conv1(20, 24)
    ),
    "concatenation with the input": of(lambda x, a: cat(x, a(x), x), a=conv3(20, 5)),
    "concatenation of a part twice": of(lambda x, a, b: b(cat(y := a(x), y)), a=conv3(20, 5), b=conv3(10, 16)),
    "concatenation of a reused part": of(
        lambda x, a, b: cat(y := torch.relu(a(x)), b(y)), a=conv3(20, 16), b=conv3(16, 16)
    ),
    "concatenation of a part in two wholes": of(
        lambda x, a, b, c, d: c(cat(y := a(x), b(x))) + d(cat(b(x), y)),
        a=conv3(20, 16),
        b=conv1(20, 5),
        c=conv3(21, 8),
        d=conv1(21, 8),
    ),
    "nested concatenation": of(
        lambda x, a, b, c: c(cat(cat(a(x), b(x)), a(x), x)), a=conv3(20, 5), b=conv1(20, 19), c=conv3(49, 16)
    ),
    "concatenation of concatenations": of(
        lambda x, a, b, c: c(cat(cat(a(x), x), cat(x, b(x)))), a=conv3(20, 16), b=conv1(20, 16), c=conv3(72, 16)
    ),
    "concatenation of pools": of(lambda x, a: cat(F.max_pool2d(a(x), 2), F.avg_pool2d(x, 2)), a=conv3(20, 16)),
    "concatenation of unlike halos": of(
        lambda x, a, b, c, d: d(cat(y := a(x), b(x))) + c(y),
        a=conv3(20, 16),
        b=conv1(20, 5),
        c=lambda: nn.Conv2d(16, 8, 5, padding=2),
        d=conv3(21, 8),
    ),
    "concatenation of features": of(
        lambda x, a, b: cat(a(x), x, b(x)), shape=(30,), a=lambda: nn.Linear(30, 20), b=lambda: nn.Linear(30, 16)
    ),
    "concatenation of flattened maps": of(
        lambda x, a, b, c: c(cat(a(x).flatten(1), b(x).flatten(1))),
        shape=(3, 4, 4),
        a=conv3(3, 5),
        b=conv1(3, 16),
        c=lambda: nn.Linear(21 * 16, 7),
    ),
    "concatenation of rows": of(lambda x, a: torch.cat([a(x), a(x), x], 2), a=conv3()),
    "concatenation with numbers": of(
        lambda x, a: cat(a(x), torch.ones(1, 4, 6, 6).expand(x.shape[0], -1, -1, -1)), a=conv3()
    ),
    "a tensor before the minus": of(lambda x, a: x.new_tensor(range(6)) - a(x), a=conv3()),
    "a tensor over": of(lambda x, a: torch.arange(1.0, 7.0) / (a(x).abs() + 1), a=conv3()),
    "a matrix times the map": of(lambda x, a: torch.arange(36.0).reshape(6, 6) @ a(x), a=conv3()),
    "attention": of(
        lambda x, a, b: (
            (torch.softmax(a(x).flatten(2).transpose(1, 2) @ b(x).flatten(2) / 4, -1) @ x.flatten(2).transpose(1, 2))
            .transpose(1, 2)
            .reshape(-1, 20, 6, 6)
        ),
        a=conv1(),
        b=conv1(),
    ),
    "attention with biases by distance": of(
        lambda x, a, b, biases: torch.softmax(
            heads(a(x)) @ heads(b(x)).transpose(2, 3) + biases.weight[:, distances()], -1
        ),
        shape=(20, 8, 8),
        a=conv1(),
        b=conv1(),
        biases=lambda: nn.Embedding(5, 64),
    ),
    "a map times itself": of(lambda x, a: a(x) @ a(x), a=conv3()),
    "where": of(lambda x, a: torch.where(a(x) > 0, x, -x), a=conv3()),
}

SEVERAL = [
    *DENSE, *SHAPES, "1x1", "1x1 on a map of 1x1", "3x3 on an image", "depthwise on an image", "30 groups of 2 and 3",
    "4 groups on a map of 1x1", "residual", "average 3x3 of what is there", "layer norm", "squeeze and excitation",
]  # fmt: skip
"""Cases in which it matters that there are several images."""

CASES = {**CONVOLUTIONS, **GROUPED, **DENSE, **POOLS, **ELEMENTWISE, **SHAPES}
