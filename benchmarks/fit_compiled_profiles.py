"""Fit profiles of devices that run compiled libraries to published latencies of whole networks; write their JSON files.

    python benchmarks/fit_compiled_profiles.py [--dry-run] [--held-out mobilenet_v2,resnet18,efficientnet_b0]
                                               [--cuts FOLDER]

The figures are those of Tencent/ncnn, benchmark/README.md at a4d2ea1d4422 (2026-07-22), milliseconds at batch 1 and
224x224 (squeezenet and alexnet: 227x227). Nothing was run here. A layer costs its MACs, by kind, the bytes of its
weights and the bytes of the maps that it reads and writes. A constant a layer as well fits a little better, but comes
out at a millisecond, which is no call's and would swamp small networks. Nine networks part these badly, so that devices
of one number format, with one thread or several, lend each other the *proportions* of coefficients: those that fit all
of them best, each with one scale of its own, are the prior of each.

First all is fitted without the networks held out, and their errors are printed; then with all networks, and written.
`--cuts` holds the fits against measured cuts of networks (data/cuts of a measuring folder), after one scale.
"""

import argparse
import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fit_profiles import CODED, ENCODE_NS, HERE_JPEG_NS, powers
from known_networks import NETWORKS, resnet18
from scipy.optimize import nnls

from modeltree import profiles
from modeltree.layers import LayerSpec
from modeltree.profiles import ELEMENT_KINDS, DeviceProfile, Measurement, load_profile

COLUMNS = (
    "squeezenet", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "efficientnet_b0", "resnet18", "resnet50", "vgg16",
    "bvlc_alexnet",
)  # fmt: skip
TABLE = """
zero2w          1 f32   240.8   393.9   274.2   234.2   519.0   654.7  1802.8       -   689.1
zero2w          4 f32   119.9   163.2   147.4   119.0   202.1   353.4   782.6       -   272.2
pi3             1 f32   125.6   205.7   158.8   127.2   241.3   379.6   979.8       -   270.6
pi3             4 f32    85.2   108.7   111.7    86.4   135.9   271.9   587.4       -   159.1
pi4             1 f32    74.0   124.3    93.5    72.8   129.7   191.1   534.1  1071.8   139.4
pi4             4 f32    46.6    61.2    61.9    47.5    74.2   123.1   262.8   547.1    76.4
pi5             1 f16    11.9    20.3    16.4    11.8    24.2    29.7    89.4   189.6    35.6
pi5             4 f16     7.4     9.0    10.5     7.3    12.3    20.0    46.2   129.2    21.4
rk3399          2 f32    46.1    69.9    58.1    45.0    80.0   118.5   308.9   612.3    81.2
rk3588          4 f16     5.6     7.5     8.3     6.8    10.4     9.5    45.0    59.5    24.8
jetson_nano     1 f32    86.1   137.6    94.0    82.0   225.9   221.6   624.8  1242.9   284.9
jetson_nano     4 f32    30.6    42.0    33.8    30.8    70.6    83.4   204.1   447.4    90.0
jetson_tx2      1 f32    50.0    88.9    59.5    49.2    90.3   124.9   386.5   667.9    96.4
jetson_tx2      6 f32    21.4    36.6    24.1    25.3    34.5    68.5   316.6   265.0    52.7
jetson_orin     1 f16    16.0    28.8    19.4    16.6    36.8    48.8   138.5   280.8    58.0
jetson_orin     6 f16     5.7     7.5     6.5     6.1    10.7    15.1    39.3    65.1    15.0
sdm660          1 f32    70.4   108.8    76.4    59.2   151.7   236.9   561.2  1196.9   206.6
sdm660          8 f32    33.3    32.3    34.5    34.8    55.0    80.0   266.6   556.0    96.4
kirin970        4 f32    25.8    35.9    24.5    23.1    49.7    73.5   214.4   352.4    66.7
sm8150          1 f16     8.3    14.4     9.8     8.2    17.7    22.1    65.9   129.8    24.9
sm8150          4 f16     3.6     5.4     4.7     4.2     7.3    10.3    26.2    60.2    11.9
sd888           8 f16     6.0     9.6     7.6     9.6    15.5    13.5    29.6    57.3    14.5
sm8550          1 f16     8.5    15.5    10.0     7.9    18.9    21.9    54.0    94.8    24.0
sm8550          4 f16     2.6     4.2     3.2     3.5     5.7     6.6    18.9    37.8     8.2
dimensity9300   1 f16     5.3     9.7     5.2     4.4    11.7    18.5    40.3    71.6    16.0
dimensity9300   4 f16     2.3     3.8     2.8     2.5     5.1     7.0    19.1    34.1     7.6
ryzen5700g      1 f32     6.8    11.6     8.7     6.9    22.9    20.3    55.7   121.6    21.6
epyc7742        1 f32     9.4    16.4    10.8     9.0    19.7    35.4    86.2   162.5    31.6
xeon8573c       1 f32     4.9     7.9     6.3     5.0     9.5    14.6    39.1   104.1    11.6
cobalt          1 f16     6.4    11.6     7.3     6.0    14.2    17.9    54.7   100.6    19.1
"""
"""Device, threads, arithmetic, and a latency for each of `COLUMNS`."""

FEATURES = ("dense", "pointwise", "depthwise", "weights", "maps")
STRIDED = 3.0
"""What a dense MAC that no Winograd kernel serves costs over one that it does, in whole networks: 2 to 4 fit alike."""

PRIOR_WEIGHT = 0.2

SHIPPED = {
    "zero2w": ("Raspberry Pi Zero 2 W (4 Cortex-A53, 1 GHz)", 90.0, 1.5, 1e9, 0.7),
    "pi3": ("Raspberry Pi 3 Model B+ (4 Cortex-A53, 1.4 GHz)", 65.0, 3.0, 1.4e9, 0.7),
    "pi4": ("Raspberry Pi 4 Model B (4 Cortex-A72, 1.5 GHz)", 35.0, 3.0, 1.5e9, 0.7),
    "pi5": ("Raspberry Pi 5 (4 Cortex-A76, 2.4 GHz)", 12.0, 5.0, 2.4e9, 0.7),
    "sdm660": ("phone with a Snapdragon 660 (Kryo 260), without dot products", 20.0, 2.5, 2.2e9, 1.0),
    "sm8150": ("phone with a Snapdragon 855 (SM8150-AC), with dot products", 8.0, 3.5, 2.9e9, 1.0),
}
"""Name: device; JPEG ns a pixel, an estimate; watts of computing, clock in Hz, watts of sending, assumed but for a Pi
4's, see fit_profiles.py."""

Row = tuple[str, int, str]


def table() -> dict[Row, dict[str, float]]:
    """(device, threads, arithmetic) -> network -> ms."""
    found = {}
    for line in TABLE.split("\n"):
        if line:
            name, threads, kind, *numbers = line.split()
            known = {n: float(ms) for n, ms in zip(COLUMNS, numbers, strict=True) if ms != "-"}
            found[name, int(threads), kind] = known
    return found


def amounts(layers: Sequence[LayerSpec]) -> np.ndarray:
    """Milliseconds that a network takes for a coefficient of 1 (ns, ns a byte): (features,)."""
    totals = dict.fromkeys(FEATURES, 0.0)
    for layer in layers:
        if not layer.dense_macs:
            continue
        kind = {"depthwise": "depthwise", "conv1x1": "pointwise", "fc": ""}.get(layer.kind, "dense")
        if kind:
            fast = layer.kind == "conv3x3" and layer.plain
            totals[kind] += layer.dense_macs * (STRIDED if kind == "dense" and not fast else 1.0)
        totals["weights"] += layer.weight_bytes
        totals["maps"] += layer.map_bytes
    return 1e-6 * np.array([totals[name] for name in FEATURES])


AMOUNTS = {name: amounts(NETWORKS[name]()) for name in COLUMNS}


def proportions(rows: Sequence[dict[str, float]]) -> np.ndarray:
    """The coefficients that fit several devices best, each with a scale of its own."""
    costs = [np.array([AMOUNTS[name] for name in row]) for row in rows]
    times = [np.array(list(row.values())) for row in rows]
    scales = np.array([np.median(one) for one in times])
    shape = np.zeros(len(FEATURES))
    for _ in range(60):
        stacked = np.vstack([x * scale / y[:, None] for x, y, scale in zip(costs, times, scales, strict=True)])
        shape = nnls(stacked, np.ones(len(stacked)))[0]
        relative = [(x @ shape) / y for x, y in zip(costs, times, strict=True)]
        scales = np.array([one.sum() / (one @ one) for one in relative])
    return shape


def coefficients(row: dict[str, float], shape: np.ndarray) -> np.ndarray:
    """A device's own, near the proportions: (features,)."""
    costs, times = np.array([AMOUNTS[name] for name in row]), np.array(list(row.values()))
    relative = (costs @ shape) / times
    prior = shape * relative.sum() / (relative @ relative)
    free = prior > 0
    stacked = np.vstack([costs[:, free] / times[:, None], PRIOR_WEIGHT * np.diag(1 / prior[free])])
    wanted = np.concatenate([np.ones(len(times)), np.full(free.sum(), PRIOR_WEIGHT)])
    values = np.zeros(len(FEATURES))
    values[free] = nnls(stacked, wanted)[0]
    return values


def fitted(held: Sequence[str] = ()) -> dict[Row, np.ndarray]:
    """Coefficients of every device of the table, some networks left out of all."""
    rows = {key: {n: ms for n, ms in row.items() if n not in held} for key, row in table().items()}
    found = {}
    for _, group in itertools.groupby(sorted(rows, key=_group), key=_group):
        keys = list(group)
        shape = proportions([rows[key] for key in keys])
        found |= {key: coefficients(rows[key], shape) for key in keys}
    return found


def _group(key: Row) -> tuple[str, bool]:
    return key[2], key[1] > 1


def profile_of(key: Row, values: np.ndarray, note: str) -> DeviceProfile:
    """A device's profile."""
    name, threads, kind = key
    what, jpeg_ns, compute_w, frequency_hz, transmit_w = SHIPPED[name]
    dense, pointwise, depthwise, weights, maps = (float(f"{value:.4g}") for value in values)
    strided = float(f"{STRIDED * dense:.4g}")
    return DeviceProfile(
        name=_name(key),
        description=f"{what}, ncnn, {threads} thread{'s' * (threads > 1)}, {kind} arithmetic",
        origin=(
            "Fitted by benchmarks/fit_compiled_profiles.py to latencies that Tencent/ncnn publishes "
            "(benchmark/README.md at a4d2ea1d4422), with the proportions of coefficients that fit all its devices of "
            f"this number format, with one thread or several alike, as the prior. {note} A 3x3 MAC with stride or "
            "groups is taken 3 times one without; 5x5 and 7x7 likewise. Layers without weights are "
            "taken as fused, and nothing to be a constant a layer. JPEG and energy are estimates."
            + CODED.format(ns=ENCODE_NS)
        ),
        fitted_to=tuple(Measurement(network=n, latency_ms=ms, note="ncnn") for n, ms in table()[key].items()),
        ns_per_mac={
            "conv1x1": pointwise, "conv3x3": dense, "conv5x5": strided, "conv7x7": strided, "depthwise": depthwise,
            "fc": 0.0,
        },
        ns_per_element=dict.fromkeys(ELEMENT_KINDS, 0.0), overhead_us=0.0, jpeg_ns_per_pixel=jpeg_ns,
        ns_per_weight_byte=weights, ns_per_map_byte=maps, strided_ratio=STRIDED,
        energy=powers(compute_w=compute_w, frequency_hz=frequency_hz, transmit_w=transmit_w),
        codec_ns_per_number=float(f"{ENCODE_NS * jpeg_ns / HERE_JPEG_NS:.2g}"),
    )  # fmt: skip


def _name(key: Row) -> str:
    return f"{key[0]}_ncnn" + ("_1t" if key[1] == 1 else "")


def errors_text(held: Sequence[str]) -> tuple[str, dict[Row, float]]:
    """Errors on held-out networks, of the shipped devices; and the mean absolute one of each."""
    lines, means = [], {}
    rows = table()
    for key, values in fitted(held).items():
        if key[0] not in SHIPPED:
            continue
        errors = {n: float(AMOUNTS[n] @ values / rows[key][n] - 1) for n in held if n in rows[key]}
        if not errors:
            continue
        means[key] = float(np.mean(np.abs(list(errors.values()))))
        told = ", ".join(f"{n} {error:+.0%}" for n, error in errors.items())
        lines.append(f"  {_name(key):14} {means[key]:5.1%}: {told}")
    mean = np.mean(list(means.values())) if means else np.nan
    return "\n".join([f"held out {', '.join(held)}: {mean:.1%} on average", *lines]), means


def main() -> None:
    """Print what the fits leave, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    parser.add_argument("--held-out", default="mobilenet_v2,resnet18,efficientnet_b0")
    parser.add_argument("--cuts", type=Path, help="folder with measured cuts")
    told = parser.parse_args()
    text, means = errors_text(told.held_out.split(","))
    print(text)
    for name in COLUMNS:
        print(errors_text([name])[0].split("\n")[0])
    for key, values in fitted().items():
        if key[0] not in SHIPPED:
            continue
        note = f"Networks held out ({told.held_out.replace(',', ', ')}) were missed by {means[key]:.0%} on average."
        profile = profile_of(key, values, note)
        errors = [profile.compute_ms(NETWORKS[n]()) / ms - 1 for n, ms in table()[key].items()]
        print(f"{profile.name:14} fitted: mean {np.mean(np.abs(errors)):.1%}, worst {max(errors, key=abs):+.1%}")
        if not told.dry_run:
            profiles.save_profile(profile, Path(profiles.__file__).parent / f"{profile.name}.json")
    if told.cuts:
        print(cuts_text(told.cuts))


def _cuts() -> dict[str, tuple[list[LayerSpec], list[int]]]:
    """Networks of the measured cuts, and the position in their layers where each block ends."""
    ends18: list[int] = []
    layers18 = resnet18(ends18)
    vgg, alex = NETWORKS["vgg16"](), NETWORKS["alexnet"]()
    return {
        "VGG16": (vgg, list(range(1, 32))), "AlexNet": (alex, list(range(1, 14))), "ResNet18": (layers18, ends18),
    }  # fmt: skip


def cuts_text(folder: Path) -> str:
    """How well the device's part of measured cuts (PyTorch on a Pi, batch 8) is met, each after one scale.

    By what is shipped, by the same model fitted to them, and by it on a network that it has not seen.
    """
    known = _cuts()
    with (folder / "splitrl_lookup_table_1_pi_to_GPU.csv").open() as file:
        rows = [
            (name, int(cut), 1e3 * float(seconds) / 8)
            for name, cut, seconds, *_ in itertools.islice(csv.reader(file), 1, None)
            if name in known and 1 <= int(cut) <= len(known[name][1])
        ]
    parts = [known[name][0][: known[name][1][cut - 1]] for name, cut, _ in rows]
    times = np.array([ms for *_, ms in rows])
    first = rows.index(next(row for row in rows if row[:2] == ("VGG16", 1)))
    lines = []
    for name in ("pi4", "pi4_ncnn"):
        error = _scaled_errors(np.array([load_profile(name).compute_ms(part) for part in parts]), times)
        lines.append(
            f"{name}: {np.mean(np.abs(error)):.0%} over {len(rows)} cuts, the first of VGG16 {error[first]:+.0%}"
        )
    costs = np.array([np.append(amounts(part), _pooled(part)) for part in parts])
    error = costs @ nnls(costs / times[:, None], np.ones(len(times)))[0] / times - 1
    lines.append(f"fitted to them: {np.mean(np.abs(error)):.0%}, the first of VGG16 {error[first]:+.0%}")
    for held in known:
        seen = np.array([name != held for name, *_ in rows])
        values = nnls(costs[seen] / times[seen, None], np.ones(seen.sum()))[0]
        error = _scaled_errors(costs[~seen] @ values, times[~seen])
        lines.append(f"fitted without {held}: {np.mean(np.abs(error)):.0%} on it")
    return "cuts: " + "\n      ".join(lines)


def _pooled(layers: Sequence[LayerSpec]) -> float:
    """Milliseconds that pools take for 1 ns a number."""
    return 1e-6 * sum(layer.elements for layer in layers if layer.op == "pool")


def _scaled_errors(guesses: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Relative errors after one scale for all."""
    ratios = guesses / times
    return np.asarray(ratios / np.exp(np.mean(np.log(ratios))) - 1)


if __name__ == "__main__":
    main()
