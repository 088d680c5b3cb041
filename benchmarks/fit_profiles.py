"""Fit the shipped device profiles to published latencies of whole networks and write their JSON files.

    python benchmarks/fit_profiles.py [--dry-run]

Few measurements, many coefficients: non-negative least squares on relative error, with a weak prior. Against the data,
a coefficient that doubles its prior costs as much as an error of PRIOR_WEIGHT in one network's latency. Convolution
kinds are tied to conv3x3 by a ratio (5x5 and 7x7 firmly); the others have an absolute prior. A prior of 0 fixes the
coefficient at 0. Where the data does not reach a kind (5x5, 7x7, often depthwise), what is
shipped *is* the prior: `origin` says so.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from scipy.optimize import nnls

from modeltree import profiles
from modeltree.energy import Energy
from modeltree.layers import LayerSpec
from modeltree.profiles import ELEMENT_KINDS, MAC_KINDS, DeviceProfile, Measurement

PRIOR_WEIGHT = 0.05
FIRM_WEIGHT = 1.0
FIRM_KINDS = ("conv5x5", "conv7x7")
"""One or two layers in a whole network: left loose, they would soak up errors that are not theirs."""

KNOWN_GMACS = {
    "vgg16": 15.5, "vgg19": 19.6, "resnet50": 4.1, "resnet101": 7.8, "resnet152": 11.5, "mobilenet_v1": 0.57,
    "mobilenet_v2": 0.30, "alexnet": 0.71, "bvlc_alexnet": 0.72,
}  # fmt: skip


@dataclass
class Chain:
    """Layers of a network, written one after the other; batch normalisation is taken as part of its convolution."""

    side: int = 224
    channels: int = 3
    layers: list[LayerSpec] = field(default_factory=list)

    def conv(
        self, out: int, k: int = 3, stride: int = 1, *, pad: int | None = None, groups: int = 1, relu: bool = True
    ) -> "Chain":
        pad = k // 2 if pad is None else pad
        side = (self.side + 2 * pad - k) // stride + 1
        self.layers.append(
            LayerSpec(
                op="conv", in_channels=self.channels, out_channels=out, out_height=side, out_width=side,
                kernel=(k, k), stride=(stride, stride), padding=(pad, pad), groups=groups,
            )
        )  # fmt: skip
        self.side, self.channels = side, out
        return self.plain("elementwise") if relu else self

    def plain(self, op: str) -> "Chain":
        spec = LayerSpec(
            op=op, in_channels=self.channels, out_channels=self.channels, out_height=self.side, out_width=self.side
        )
        self.layers.append(spec)
        return self

    def pool(self, k: int = 2, stride: int = 2, pad: int = 0) -> "Chain":
        self.side = (self.side + 2 * pad - k) // stride + 1
        return self.plain("pool")

    def fc(self, out: int, *, relu: bool = True) -> "Chain":
        features = self.channels * self.side**2
        self.layers.append(LayerSpec(op="fc", in_channels=features, out_channels=out))
        self.side, self.channels = 1, out
        return self.plain("elementwise") if relu else self


def vgg(*convs: int) -> list[LayerSpec]:
    net = Chain()
    for width, count in zip((64, 128, 256, 512, 512), convs, strict=True):
        for _ in range(count):
            net.conv(width)
        net.pool()
    return net.fc(4096).fc(4096).fc(1000, relu=False).layers


def resnet(*blocks: int) -> list[LayerSpec]:
    """Bottleneck ResNet with the stride in its 3x3 convolution (4.1 GMACs for 50 layers; 3.9 with it in the 1x1)."""
    net = Chain().conv(64, 7, 2).pool(3, 2, 1)
    for stage, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True)):
        for block in range(count):
            stride = 2 if stage and not block else 1
            if not block:  # the shortcut's projection starts from the same input
                shortcut = Chain(net.side, net.channels).conv(4 * width, 1, stride, relu=False)
                net.layers += shortcut.layers
            net.conv(width, 1).conv(width, 3, stride).conv(4 * width, 1, relu=False).plain("elementwise")
            net.plain("elementwise")
    return net.pool(7, 1).fc(1000, relu=False).layers


def mobilenet_v1() -> list[LayerSpec]:
    net = Chain().conv(32, 3, 2)
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for out, stride in rows:
        net.conv(net.channels, 3, stride, groups=net.channels).conv(out, 1)
    return net.pool(7, 1).fc(1000, relu=False).layers


def mobilenet_v2() -> list[LayerSpec]:
    net = Chain().conv(32, 3, 2)
    rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, out, count, first in rows:
        for block in range(count):
            stride, before = (first, net.channels) if not block else (1, out)
            if expand > 1:
                net.conv(expand * before, 1)
            net.conv(net.channels, 3, stride, groups=net.channels).conv(out, 1, relu=False)
            if block:
                net.plain("elementwise")
    return net.conv(1280, 1).pool(7, 1).fc(1000, relu=False).layers


def alexnet() -> list[LayerSpec]:
    """torchvision's, on 227x227 as DLInfBench runs it."""
    net = Chain(227).conv(64, 11, 4, pad=2).pool(3).conv(192, 5).pool(3).conv(384).conv(256).conv(256).pool(3)
    return net.fc(4096).fc(4096).fc(1000, relu=False).layers


def bvlc_alexnet() -> list[LayerSpec]:
    """Caffe's, with its convolutions in two groups; local response normalisation is neglected."""
    net = Chain(227).conv(96, 11, 4, pad=0).pool(3).conv(256, 5, groups=2).pool(3)
    net.conv(384).conv(384, groups=2).conv(256, groups=2).pool(3)
    return net.fc(4096).fc(4096).fc(1000, relu=False).layers


NETWORKS: dict[str, Callable[[], list[LayerSpec]]] = {
    "vgg16": lambda: vgg(2, 2, 3, 3, 3),
    "vgg19": lambda: vgg(2, 2, 4, 4, 4),
    "resnet50": lambda: resnet(3, 4, 6, 3),
    "resnet101": lambda: resnet(3, 4, 23, 3),
    "resnet152": lambda: resnet(3, 8, 36, 3),
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "alexnet": alexnet,
    "bvlc_alexnet": bvlc_alexnet,
}


@dataclass(frozen=True, kw_only=True)
class Prior:
    """ratios : per-MAC cost of convolution kinds over conv3x3. The rest: ns per MAC, ns per element, us."""

    ratios: dict[str, float]
    fc_ns: float
    element_ns: dict[str, float]
    overhead_us: float


CPU_RATIOS = {"conv1x1": 1.0, "conv5x5": 1.0, "conv7x7": 1.0, "depthwise": 6.0}
"""A depthwise convolution reuses a loaded value 9 times, a dense one hundreds of times: memory-bound, several times
dearer per MAC."""
GPU_RATIOS = CPU_RATIOS | {"depthwise": 10.0}

DEVICES: dict[str, tuple[DeviceProfile, Prior]] = {}

ENCODE_NS, DECODE_NS = 6.0, 4.3
"""Per number of a hand-over, timed as benchmarks/codec.py does: AlexNet's maps (32x32 images) behind every activation
and pool, 4 and 8 bits, one thread of an AMD EPYC, numpy, 2026-11-21."""
HERE_JPEG_NS = 2.651
"""The same machine's JPEG time per pixel, from `cloud_cpu`; a device's over it is how much slower its core is taken."""

CODED = (
    " Coding a hand-over: {ns} ns a number were measured on one core of this project's machine; scaled by this "
    "profile's JPEG time over that machine's, an estimate."
)


def device(
    name: str, description: str, origin: str, latencies: dict[str, float], note: str, jpeg_ns: float, prior: Prior,
    *, energy: Energy | None = None, coding_ns: float = ENCODE_NS,
) -> None:  # fmt: skip
    """Enter a device: the profile to be filled, and the prior of its fit."""
    fitted_to = tuple(Measurement(network=n, latency_ms=ms, note=note) for n, ms in latencies.items())
    blank = DeviceProfile(
        name=name, description=description, origin=origin + CODED.format(ns=coding_ns), fitted_to=fitted_to,
        ns_per_mac=dict.fromkeys(MAC_KINDS, 0.0), ns_per_element=dict.fromkeys(ELEMENT_KINDS, 0.0),
        overhead_us=0.0, jpeg_ns_per_pixel=jpeg_ns, energy=energy,
        codec_ns_per_number=float(f"{coding_ns * jpeg_ns / HERE_JPEG_NS:.2g}"),
    )  # fmt: skip
    DEVICES[name] = (blank, prior)


def powers(*, compute_w: float, frequency_hz: float, transmit_w: float) -> Energy:
    """Parameters with which computing and sending draw so much: k0 = compute_w / f^3, gamma = 1 / P."""
    return Energy(
        k0_w_per_hz3=float(f"{compute_w / frequency_hz**3:.4g}"), frequency_hz=frequency_hz, power_w=transmit_w,
        gamma_per_w=1 / transmit_w,
    )  # fmt: skip


device(
    "phone",
    "Xiaomi MI 6X (Snapdragon 660), CPU, as in Wang 2020",
    "Fitted by benchmarks/fit_profiles.py to the four latencies of Wang 2020, table I. As in the paper, only "
    "convolutions and FC layers cost time: no overhead per layer, nothing for the rest. conv3x3 and conv1x1 come from "
    "the data; conv5x5 and conv7x7 follow conv3x3, depthwise is assumed 6 times conv3x3 per MAC, fc is assumed bound "
    "by a memory of about 6 GB/s. JPEG is an estimate for libjpeg-turbo on one core, not a measurement. "
    "Energy: 2.2 GHz is the published clock of the four fast cores; no power of this chip was found published, so that "
    "2.5 W for computing (four cores of its class under load, above idle) and 1 W for a WiFi radio that sends are "
    "assumed.",
    {"vgg19": 5734.89, "resnet50": 1103.20, "resnet101": 2238.79, "resnet152": 3729.10},
    "Wang 2020, table I, 1x3x224x224",
    20.0,
    Prior(ratios=CPU_RATIOS, fc_ns=0.65, element_ns=dict.fromkeys(ELEMENT_KINDS, 0.0), overhead_us=0.0),
    energy=powers(compute_w=2.5, frequency_hz=2.2e9, transmit_w=1.0),
)
device(
    "pi4",
    "Raspberry Pi 4 (4 Cortex-A72), CPU, Keras/TensorFlow",
    "Fitted by benchmarks/fit_profiles.py to public latencies of five networks (Scission, TensorFlow on a Pi 4). "
    "Everything is put down to operators, nothing to a cost per layer: with one free, the fit puts 4.6 ms on every "
    "layer, which is that framework's at 224x224 and would swamp a compiled network on small images. conv3x3 and the "
    "mix of depthwise and 1x1 come from the data; conv5x5 and conv7x7 follow conv3x3; fc and element-wise work are "
    "assumed bound by a memory of about 4 GB/s. JPEG is an estimate, not a measurement. Energy: 1.5 GHz is the "
    "published clock; computing is 3 W, what two USB meters read under high load above idle (5.4 and 5.1 W over 2.2 "
    "and 2.3 W: chipwired.com/raspberry-pi-power-use); 0.7 W for WiFi that is busy is one web page's reading, rough.",
    {"vgg16": 2110.0, "vgg19": 2740.0, "resnet50": 960.0, "mobilenet_v2": 440.0, "mobilenet_v1": 340.0},
    "Scission, Raspberry Pi 4, 224x224, rounded to 10 ms",
    35.0,
    Prior(
        ratios=CPU_RATIOS | {"conv1x1": 2.0, "depthwise": 40.0}, fc_ns=1.0,
        element_ns={"pool": 6.0, "elementwise": 2.0, "move": 2.0}, overhead_us=0.0,
    ),
    energy=powers(compute_w=3.0, frequency_hz=1.5e9, transmit_w=0.7),
)  # fmt: skip
device(
    "tx2",
    "NVIDIA Jetson TX2, its GPU, Caffe with cuDNN, clocks at maximum",
    "Fitted by benchmarks/fit_profiles.py to three latencies published by J. K. Jung (jkjung-avt.github.io/caffe-time, "
    "February 2018, `caffe time`, batch 1, 32-bit floats). Three networks cannot part the kinds: ratios are priors "
    "(depthwise 10 times conv3x3 per MAC, a guess), fc is assumed bound by a memory of about 30 GB/s, element-wise "
    "work by the same. JPEG is an estimate for one CPU core, not a measurement. Energy: 1.3 GHz is the GPU's published "
    "highest clock; NVIDIA gives the module 7.5 W and 15 W as budgets of its two modes; 9 W for computing (most of the "
    "higher one, above idle) and 1 W for the radio are assumed.",
    {"bvlc_alexnet": 12.9396, "vgg16": 91.82, "resnet50": 64.0829},
    "J. K. Jung, Caffe, GPU, batch 1; bvlc_alexnet at 227x227, the others at 224x224",
    20.0,
    Prior(
        ratios=GPU_RATIOS, fc_ns=0.13, element_ns={"pool": 0.5, "elementwise": 0.25, "move": 0.25}, overhead_us=100.0
    ),
    energy=powers(compute_w=9.0, frequency_hz=1.3e9, transmit_w=1.0),
)
device(
    "cloud_gpu",
    "Server with a GTX 1080 Ti, as in Wang 2020, PyTorch 0.1.12 with cuDNN 5.1",
    "Fitted by benchmarks/fit_profiles.py to public throughputs at batch 1 (nicklhy/DLInfBench, "
    "results/gtx_1080_ti/pytorch_*_1.txt, image/s turned into ms; images one after the other without waiting between "
    "them, input copy included). Deep networks are bound by launches: about 70 us per layer with its batch norm and "
    "ReLU. depthwise is assumed 10 times conv3x3 per MAC; fc bound by 484 GB/s of memory, element-wise work by the "
    "same. JPEG is an estimate for one server core, not a measurement.",
    {
        "alexnet": 1e3 / 683.417227, "vgg16": 1e3 / 198.814889, "vgg19": 1e3 / 172.538241,
        "resnet50": 1e3 / 194.850439, "resnet101": 1e3 / 110.779755, "resnet152": 1e3 / 78.444431,
    },
    "DLInfBench, GTX 1080 Ti, batch 1; alexnet at 227x227, the others at 224x224",
    8.0,
    Prior(
        ratios=GPU_RATIOS, fc_ns=0.0083, element_ns={"pool": 0.03, "elementwise": 0.0165, "move": 0.0165},
        overhead_us=80.0,
    ),
    coding_ns=DECODE_NS,
)  # fmt: skip


def fit(profile: DeviceProfile, prior: Prior) -> DeviceProfile:
    """The profile with coefficients that minimise squared relative error plus the prior's penalty."""
    names = [*MAC_KINDS, *ELEMENT_KINDS, "overhead"]
    absolute = {"fc": prior.fc_ns, **prior.element_ns, "overhead": prior.overhead_us}
    times = np.array([m.latency_ms for m in profile.fitted_to])
    costs = np.array([[amount(NETWORKS[m.network](), name) for name in names] for m in profile.fitted_to])
    known = costs @ np.array([absolute.get(name, 0.0) for name in names])
    tied = costs @ np.array([1.0 if n == "conv3x3" else prior.ratios.get(n, 0.0) for n in names])
    scale = float(np.median(np.maximum(times - known, 0.1 * times) / tied))  # conv3x3 as the prior alone would have it

    penalties = []
    for i, name in enumerate(names):
        row = np.zeros(len(names) + 1)
        if name in prior.ratios:
            row[i], row[names.index("conv3x3")] = 1 / (prior.ratios[name] * scale), -1 / scale
        elif absolute.get(name):
            row[i], row[-1] = 1 / absolute[name], 1.0
        penalties.append((FIRM_WEIGHT if name in FIRM_KINDS else PRIOR_WEIGHT) * row)
    rows = np.vstack([np.hstack([costs / times[:, None], np.ones((len(times), 1))]), penalties])
    free = [n not in absolute or absolute[n] > 0 for n in names]
    values = np.zeros(len(names))
    values[free] = nnls(rows[:, :-1][:, free], rows[:, -1])[0]
    rounded = {name: float(f"{value:.4g}") for name, value in zip(names, values, strict=True)}
    return msgspec.structs.replace(
        profile,
        ns_per_mac={kind: rounded[kind] for kind in MAC_KINDS},
        ns_per_element={kind: rounded[kind] for kind in ELEMENT_KINDS},
        overhead_us=rounded["overhead"],
    )


def amount(layers: list[LayerSpec], name: str) -> float:
    """How many ms a coefficient of 1 (ns per MAC, ns per element, us per layer) adds to a network."""
    if name == "overhead":
        return sum(spec.kind in MAC_KINDS for spec in layers) * 1e-3
    return sum(spec.dense_macs or spec.elements for spec in layers if spec.kind == name) * 1e-6


def main() -> None:
    """Check the networks' MACs, fit every device, print what the fit leaves, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    dry_run = parser.parse_args().dry_run
    for name, gmacs in KNOWN_GMACS.items():
        found = sum(spec.macs for spec in NETWORKS[name]()) / 1e9
        print(f"{name:13} {found:7.3f} GMACs (known: {gmacs})")
        assert math.isclose(found, gmacs, rel_tol=0.02), name
    for name, (blank, prior) in DEVICES.items():
        profile = fit(blank, prior)
        coefficients = profile.ns_per_mac | profile.ns_per_element | {"overhead_us": profile.overhead_us}
        print(f"\n{name}: " + ", ".join(f"{key} {value:g}" for key, value in coefficients.items()))
        for m in profile.fitted_to:
            guess = profile.compute_ms(NETWORKS[m.network]())
            error = guess / m.latency_ms - 1
            print(f"  {m.network:13} measured {m.latency_ms:9.2f} ms, fitted {guess:9.2f} ms, {error:+.1%}")
        if not dry_run:
            profiles.save_profile(profile, Path(profiles.__file__).parent / f"{name}.json")


if __name__ == "__main__":
    main()
