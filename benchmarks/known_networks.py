"""More networks of published tables as layers, beside those of fit_profiles.py; and where their usual blocks end."""

from fit_profiles import NETWORKS as FITTED
from fit_profiles import Chain

from modeltree.layers import LayerSpec


def squeezenet() -> list[LayerSpec]:
    """Version 1.1, on 227x227."""
    net = Chain(227).conv(64, 3, 2, pad=0).pool(3, 2)
    for squeeze, expand, pools in (
        (16, 64, 0), (16, 64, 1), (32, 128, 0), (32, 128, 1), (48, 192, 0), (48, 192, 0), (64, 256, 0), (64, 256, 0),
    ):  # fmt: skip
        net.conv(squeeze, 1)
        net.layers += Chain(net.side, net.channels).conv(expand, 1).layers
        net.conv(expand, 3)
        net.channels = 2 * expand
        if pools:
            net.pool(3, 2)
    return net.conv(1000, 1).pool(net.side, 1).layers


def resnet18(ends: list[int] | None = None) -> list[LayerSpec]:
    """ends : takes the position behind the stem and behind every block."""
    net = Chain().conv(64, 7, 2).pool(3, 2, 1)
    marks = [len(net.layers)]
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            if stride == 2:
                net.layers += Chain(net.side, net.channels).conv(width, 1, 2, relu=False).layers
            net.conv(width, 3, stride).conv(width, 3, relu=False).plain("elementwise").plain("elementwise")
            marks.append(len(net.layers))
    if ends is not None:
        ends += marks
    return net.pool(7, 1).fc(1000, relu=False).layers


def _squeezed(net: Chain, width: int, inner: int) -> None:
    """Squeeze and excitation over the last map."""
    net.layers += Chain(1, width).conv(inner, 1).conv(width, 1).layers
    net.plain("elementwise").plain("pool")


def mobilenet_v3() -> list[LayerSpec]:
    """The large one."""
    net = Chain().conv(16, 3, 2)
    for kernel, expand, out, squeezes, stride in (
        (3, 16, 16, 0, 1), (3, 64, 24, 0, 2), (3, 72, 24, 0, 1), (5, 72, 40, 1, 2), (5, 120, 40, 1, 1),
        (5, 120, 40, 1, 1), (3, 240, 80, 0, 2), (3, 200, 80, 0, 1), (3, 184, 80, 0, 1), (3, 184, 80, 0, 1),
        (3, 480, 112, 1, 1), (3, 672, 112, 1, 1), (5, 672, 160, 1, 2), (5, 960, 160, 1, 1), (5, 960, 160, 1, 1),
    ):  # fmt: skip
        before = net.channels
        if expand != before:
            net.conv(expand, 1)
        net.conv(expand, kernel, stride, groups=expand)
        if squeezes:
            _squeezed(net, expand, expand // 4)
        net.conv(out, 1, relu=False)
        if stride == 1 and before == out:
            net.plain("elementwise")
    return net.conv(960, 1).pool(7, 1).fc(1280).fc(1000, relu=False).layers


def efficientnet_b0() -> list[LayerSpec]:
    net = Chain().conv(32, 3, 2)
    for expand, out, count, first, kernel in (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    ):  # fmt: skip
        for block in range(count):
            before, stride = net.channels, 1 if block else first
            if expand > 1:
                net.conv(expand * before, 1)
            net.conv(net.channels, kernel, stride, groups=net.channels)
            _squeezed(net, net.channels, before // 4)
            net.conv(out, 1, relu=False)
            if block:
                net.plain("elementwise")
    return net.conv(1280, 1).pool(7, 1).fc(1000, relu=False).layers


NETWORKS = FITTED | {
    "squeezenet": squeezenet, "resnet18": resnet18, "mobilenet_v3": mobilenet_v3, "efficientnet_b0": efficientnet_b0,
}  # fmt: skip
