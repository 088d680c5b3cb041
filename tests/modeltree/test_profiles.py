"""Profiles price a layer by its kind, come with the package, and refuse nonsense by name."""

import itertools
import json
import math

import msgspec
import pytest

from modeltree.errors import ConfigError, DataError, FormatError
from modeltree.layers import LayerSpec
from modeltree.profiles import MAC_KINDS, PROFILES, DeviceProfile, load_profile, save_profile

GOOD = {
    "name": "toy", "description": "a toy", "origin": "made up", "fitted_to": (),
    "ns_per_mac": {"conv1x1": 1.0, "conv3x3": 2.0, "conv5x5": 3.0, "conv7x7": 4.0, "depthwise": 5.0, "fc": 6.0},
    "ns_per_element": {"pool": 7.0, "elementwise": 8.0, "move": 0.0}, "overhead_us": 100.0, "jpeg_ns_per_pixel": 10.0,
}  # fmt: skip
CONV = LayerSpec(op="conv", in_channels=10, out_channels=20, out_height=10, out_width=10, kernel=(3, 3))


def vgg19():
    """VGG19 at 224x224: its convolutions and FC layers."""
    layers, channels, side = [], 3, 224
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            layers.append(
                LayerSpec(
                    op="conv", in_channels=channels, out_channels=width, out_height=side, out_width=side, kernel=(3, 3)
                )
            )
            channels = width
        side //= 2
    sizes = (512 * 49, 4096, 4096, 1000)
    return layers + [LayerSpec(op="fc", in_channels=i, out_channels=o) for i, o in itertools.pairwise(sizes)]


def test_a_layer_with_weights_costs_its_macs_and_the_overhead():
    assert DeviceProfile(**GOOD).layer_ms(CONV) == pytest.approx(180_000 * 2e-6 + 0.1)


def test_a_layer_without_weights_costs_its_output():
    pool = LayerSpec(op="pool", in_channels=4, out_channels=4, out_height=5, out_width=5)
    assert DeviceProfile(**GOOD).layer_ms(pool) == pytest.approx(100 * 7e-6)


def test_a_depthwise_layer_has_its_own_price():
    spec = LayerSpec(op="conv", in_channels=8, out_channels=8, out_height=10, out_width=10, kernel=(3, 3), groups=8)
    assert DeviceProfile(**GOOD).layer_ms(spec) == pytest.approx(9 * 800 * 5e-6 + 0.1)


def test_zeros_in_the_weights_save_no_time():
    sparse = msgspec.structs.replace(CONV, density=0.1)
    assert DeviceProfile(**GOOD).layer_ms(sparse) == DeviceProfile(**GOOD).layer_ms(CONV)


def test_layers_add_up_and_none_cost_nothing():
    profile = DeviceProfile(**GOOD)
    assert profile.compute_ms([CONV, CONV]) == pytest.approx(2 * profile.layer_ms(CONV))
    assert profile.compute_ms([]) == 0
    assert profile.jpeg_ms(100, 100) == pytest.approx(0.1)


def conv(kernel=3, groups=1, stride=1):
    """64 channels to 64, 56 x 56."""
    return LayerSpec(
        op="conv", in_channels=64, out_channels=64, out_height=56 // stride, out_width=56 // stride,
        kernel=(kernel, kernel), stride=(stride, stride), groups=groups,
    )  # fmt: skip


def test_maps_that_are_read_and_written_and_strides_cost_what_the_profile_says():
    plain = DeviceProfile(**GOOD)
    more = DeviceProfile(**GOOD, ns_per_map_byte=2.0, strided_ratio=3.0)
    maps_ms = 2.0e-6 * 4 * 2 * 64 * 56 * 56
    assert more.layer_ms(conv()) - plain.layer_ms(conv()) == pytest.approx(maps_ms)
    work_ms = GOOD["ns_per_mac"]["conv3x3"] * conv(stride=2).dense_macs * 1e-6
    maps_ms = 2.0e-6 * 4 * 64 * (56 * 56 + 28 * 28)
    assert more.layer_ms(conv(stride=2)) - plain.layer_ms(conv(stride=2)) == pytest.approx(maps_ms + 2 * work_ms)
    assert more.layer_ms(conv(kernel=1, stride=2)) - plain.layer_ms(conv(kernel=1, stride=2)) == pytest.approx(maps_ms)


def test_webp_takes_what_was_measured_or_five_times_jpeg():
    assert DeviceProfile(**GOOD).encode_ms("webp", 100) == pytest.approx(
        5 * DeviceProfile(**GOOD).encode_ms("jpeg", 100)
    )
    assert DeviceProfile(**GOOD, webp_ns_per_pixel=7.0).encode_ms("webp", 100) == pytest.approx(7e-4)


@pytest.mark.parametrize("name", PROFILES)
def test_every_shipped_profile_loads_and_says_where_it_comes_from(name):
    profile = load_profile(name)
    assert profile.name == name
    assert len(profile.origin) > 50
    assert profile.fitted_to
    layers = [LayerSpec(op="fc", in_channels=64, out_channels=64), *(conv(kernel=k) for k in (1, 3, 5, 7))]
    assert {layer.kind for layer in layers} | {"depthwise"} == set(MAC_KINDS)
    assert all(profile.layer_ms(layer) > profile.overhead_us / 1000 for layer in (*layers, conv(groups=64)))


@pytest.mark.parametrize(("name", "tolerance"), [("phone", 0.1), ("pi4", 0.15)])
def test_a_profile_predicts_the_vgg19_it_was_fitted_to(name, tolerance):
    profile = load_profile(name)
    measured = next(m.latency_ms for m in profile.fitted_to if m.network == "vgg19")
    assert profile.compute_ms(vgg19()) == pytest.approx(measured, rel=tolerance)


def test_a_gpu_server_is_faster_than_a_cpu_server_and_both_than_the_devices():
    times = {name: load_profile(name).compute_ms(vgg19()) for name in PROFILES}
    assert times["cloud_gpu"] < times["cloud_cpu"] < times["pi4"] < times["phone"]


def test_a_depthwise_mac_costs_more_than_a_dense_one_everywhere():
    for name in PROFILES:
        profile = load_profile(name)
        apart, dense = (profile.layer_ms(conv(groups=groups)) - profile.overhead_us / 1000 for groups in (64, 1))
        assert 64 * apart > 1.5 * dense, name


def test_a_profile_comes_back_from_its_file(tmp_path):
    path = tmp_path / "toy.json"
    save_profile(DeviceProfile(**GOOD), path)
    assert load_profile(path) == DeviceProfile(**GOOD)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ConfigError, match="phone"):
        load_profile("toaster")


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json"):
        load_profile(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    "wrong",
    [
        {"overhead_us": -1.0},
        {"jpeg_ns_per_pixel": math.nan},
        {"ns_per_mac": GOOD["ns_per_mac"] | {"fc": -1e-9}},
        {"ns_per_mac": GOOD["ns_per_mac"] | {"fc": math.inf}},
        {"ns_per_mac": GOOD["ns_per_mac"] | {"conv9x9": 1.0}},
        {"ns_per_mac": {"fc": 1.0}},
        {"ns_per_element": {}},
        {"version": 2},
    ],
)
def test_coefficients_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError):
        DeviceProfile(**(GOOD | wrong))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"null",
        json.dumps(GOOD | {"colour": "red"}).encode(),
        json.dumps(GOOD | {"overhead_us": "fast"}).encode(),
        json.dumps(GOOD | {"overhead_us": -3}).encode(),
        json.dumps(GOOD | {"version": 99}).encode(),
        json.dumps({k: v for k, v in GOOD.items() if k != "origin"}).encode(),
        json.dumps(GOOD).replace("100.0", "1e999").encode(),
        b"[" * 100_000,
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_bytes(text)
    with pytest.raises(FormatError, match=r"broken\.json"):
        load_profile(path)


def test_weights_may_have_a_price_of_their_own():
    profile = DeviceProfile(**GOOD, ns_per_weight_byte=0.5)
    assert profile.layer_ms(CONV) == pytest.approx(180_000 * 2e-6 + 0.1 + 7200 * 0.5e-6)
    fc = LayerSpec(op="fc", in_channels=100, out_channels=10)
    assert profile.layer_ms(fc) == pytest.approx(1000 * 6e-6 + 0.1 + 4000 * 0.5e-6)
    with pytest.raises(ConfigError, match="ns_per_weight_byte"):
        DeviceProfile(**GOOD, ns_per_weight_byte=-0.1)


@pytest.mark.parametrize("name", ["phone", "pi4", "tx2"])
def test_devices_say_what_computing_sending_and_coding_take(name):
    profile = load_profile(name)
    assert profile.energy is not None
    assert 0.1 < profile.energy.transmit_w < profile.energy.compute_w < 20  # W: a radio, a processor
    assert profile.codec_ms(16_384) == pytest.approx(profile.codec_ns_per_number * 16_384 * 1e-6)
    assert "Energy: " in profile.origin
    assert "Coding a hand-over" in profile.origin


def test_a_profile_keeps_its_energy_and_an_older_one_has_none(tmp_path):
    profile = load_profile("pi4")
    save_profile(profile, tmp_path / "a.json")
    assert load_profile(tmp_path / "a.json") == profile
    older = json.loads((tmp_path / "a.json").read_text())
    del older["energy"], older["codec_ns_per_number"]
    (tmp_path / "b.json").write_text(json.dumps(older))
    assert (load_profile(tmp_path / "b.json").energy, load_profile(tmp_path / "b.json").codec_ns_per_number) == (
        None,
        0,
    )
    older["energy"] = {"power_w": -1.0}
    (tmp_path / "c.json").write_text(json.dumps(older))
    with pytest.raises(FormatError, match="power_w is -1"):
        load_profile(tmp_path / "c.json")
