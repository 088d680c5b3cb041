"""Measure this machine's CPU with torch and write the profile `cloud_cpu`.

    python benchmarks/measure_cpu_profile.py [--threads 2] [--rounds 20] [--dry-run]

Batch 1, 32-bit floats, eager mode. Every case is the *fastest* of its runs, because other work on a shared machine
can only slow it down. MAC coefficients and the overhead are fitted together, on the logarithm of the
times of single layers, robustly; what one coefficient per kind cannot say shows in the printed residuals.
"""

import argparse
import datetime
import io
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.optimize import least_squares

from modeltree import profiles
from modeltree.layers import LayerSpec
from modeltree.profiles import ELEMENT_KINDS, MAC_KINDS, DeviceProfile, Measurement
from modeltree.units import ms_from_s

CONVS = {  # kind: (input channels, output channels, side) or, for depthwise, (channels, side)
    "conv1x1": [(64, 64, 32), (128, 128, 16), (256, 256, 8), (512, 512, 4), (64, 256, 56), (256, 128, 28)],
    "conv3x3": [(3, 64, 32), (64, 128, 16), (128, 256, 8), (256, 512, 4), (512, 512, 2), (64, 64, 112), (256, 256, 28)],
    "conv5x5": [(64, 192, 27), (64, 192, 8), (32, 64, 14)],
    "conv7x7": [(3, 64, 112), (16, 32, 32)],
    "depthwise": [(64, 32), (128, 16), (256, 8), (512, 4), (64, 112), (256, 28), (512, 14)],
}
FCS = [(512, 512), (512, 10), (4096, 4096), (9216, 4096)]
MAPS = [(64, 32), (128, 16), (64, 112), (256, 28)]


def cases() -> list[tuple[LayerSpec, Callable[[], object]]]:
    """Layers to time: what they are, and a call that runs them once."""
    timed: list[tuple[LayerSpec, Callable[[], object]]] = []
    for kind, shapes in CONVS.items():
        k = 3 if kind == "depthwise" else int(kind[-1])
        for shape in shapes:
            cin, cout, side = (shape[0], *shape) if kind == "depthwise" else shape
            groups = cin if kind == "depthwise" else 1
            conv = torch.nn.Conv2d(cin, cout, k, padding=k // 2, groups=groups).eval()
            spec = LayerSpec(
                op="conv", in_channels=cin, out_channels=cout, out_height=side, out_width=side, kernel=(k, k),
                groups=groups,
            )  # fmt: skip
            timed.append((spec, bind(conv, torch.randn(1, cin, side, side))))
    for cin, cout in FCS:
        spec = LayerSpec(op="fc", in_channels=cin, out_channels=cout)
        timed.append((spec, bind(torch.nn.Linear(cin, cout).eval(), torch.randn(1, cin))))
    for channels, side in MAPS:
        image = torch.randn(1, channels, side, side)
        for op, call, out in (
            ("pool", torch.nn.MaxPool2d(2), side // 2),
            ("elementwise", torch.nn.ReLU(), side),
            ("move", torch.clone, side),
        ):
            spec = LayerSpec(op=op, in_channels=channels, out_channels=channels, out_height=out, out_width=out)
            timed.append((spec, bind(call, image)))
    return timed


def bind(call: Callable[[torch.Tensor], object], x: torch.Tensor) -> Callable[[], object]:
    return lambda: call(x)


def fastest_ms(calls: Sequence[Callable[[], object]], rounds: int, repeats: int = 5) -> list[float]:
    """Fastest run of each call, in rounds over all of them, so that a burst of other work hits every call a little."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            for _ in range(1 + repeats):
                start = time.perf_counter()
                call()
                best[i] = min(best[i], time.perf_counter() - start)
    return [ms_from_s(seconds) for seconds in best]


def jpeg_ns_per_pixel(rounds: int) -> float:
    """Decoding a 224x224 photo-like image (smooth, with noise) of quality 75: what a server does."""
    ramp = np.linspace(0, 200, 224)[:, None, None] + np.random.default_rng(0).normal(20, 8, (224, 224, 3))
    buffer = io.BytesIO()
    Image.fromarray(ramp.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
    return fastest_ms([lambda: np.asarray(Image.open(io.BytesIO(buffer.getvalue())))], rounds)[0] * 1e6 / 224**2


def fit(specs: list[LayerSpec], times_ms: list[float]) -> tuple[dict[str, float], dict[str, float], float]:
    """ns per MAC, ns per element (median) and the overhead in us."""
    heavy = [(s, t) for s, t in zip(specs, times_ms, strict=True) if s.kind in MAC_KINDS]
    rows = np.array([[(s.kind == kind) * s.dense_macs * 1e-6 / t for kind in MAC_KINDS] + [1e-3 / t] for s, t in heavy])
    start = np.log([0.01] * len(MAC_KINDS) + [5.0])
    fitted = least_squares(lambda logs: np.log(rows @ np.exp(logs)), start, loss="soft_l1", f_scale=0.3)
    values = [float(f"{v:.4g}") for v in np.exp(fitted.x)]
    light = {
        kind: np.median([t * 1e6 / s.elements for s, t in zip(specs, times_ms, strict=True) if s.kind == kind])
        for kind in ELEMENT_KINDS
    }
    return dict(zip(MAC_KINDS, values)), {k: float(f"{v:.4g}") for k, v in light.items()}, values[-1]


def main() -> None:
    """Time every case, fit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    load = os.getloadavg()[0]
    timed = cases()
    with torch.inference_mode():
        times_ms = fastest_ms([call for _, call in timed], options.rounds)
    specs = [spec for spec, _ in timed]
    per_mac, per_element, overhead_us = fit(specs, times_ms)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    note = f"torch {torch.__version__}, {options.threads} threads, fastest of {options.rounds} rounds, {today}, "
    note += f"load average {load:.1f} before"
    names = [f"{s.kind} {s.in_channels}>{s.out_channels} {s.out_height}x{s.out_width}" for s in specs]
    profile = DeviceProfile(
        name="cloud_cpu",
        description="Small CPU server, 2 cores, PyTorch eager",
        origin="Measured by benchmarks/measure_cpu_profile.py, layer by layer, on a shared machine: "
        f"{processor()}, {note}. Whole networks may run faster (warm caches) or slower (more memory traffic).",
        fitted_to=tuple(
            Measurement(network=name, latency_ms=round(t, 5), note="one layer")
            for name, t in zip(names, times_ms, strict=True)
        ),
        ns_per_mac=per_mac,
        ns_per_element=per_element,
        overhead_us=overhead_us,
        jpeg_ns_per_pixel=float(f"{jpeg_ns_per_pixel(options.rounds):.4g}"),
    )
    for spec, name, t in zip(specs, names, times_ms, strict=True):
        guess = profile.layer_ms(spec)
        print(f"{name:28} measured {t:8.4f} ms, fitted {guess:8.4f}, {guess / t - 1:+.0%}")
    print(per_mac, per_element, f"overhead {overhead_us} us, jpeg {profile.jpeg_ns_per_pixel} ns/pixel", sep="\n")
    if not options.dry_run:
        profiles.save_profile(profile, Path(profiles.__file__).parent / "cloud_cpu.json")


def processor() -> str:
    """The CPU's model as Linux names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} cores of {models[0]}" if models else platform.processor()


if __name__ == "__main__":
    main()
