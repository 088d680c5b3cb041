"""Base networks: what they compute, that they export, and that bad files are refused in one line."""

import hashlib
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from modeltree.errors import ConfigError, DataError
from nas.bases import BASES, EXITS, build, fingerprint, load_weights_, save_weights
from transforms import analyse, export

OWN = "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))\n"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", BASES)
def test_every_base_exports_with_a_dynamic_batch_and_the_program_agrees(name):
    model = build(name, num_classes=7, image_size=32).eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(model, (torch.randn(2, 3, 32, 32),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x))
        assert model(x).shape == (5, 7)


@pytest.mark.parametrize("name", BASES)
def test_every_base_takes_larger_images(name):
    model = build(name, num_classes=3, image_size=80).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 80, 80)).shape == (1, 3)


VGG11 = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
ALEXNET = [(3, 64), (64, 192), (192, 384), (384, 256), (256, 256)]


@pytest.mark.parametrize(
    ("name", "convolutions", "linear"),
    [
        ("vgg11", VGG11, [(512, 512), (512, 512), (512, 10)]),
        ("alexnet", ALEXNET, [(1024, 1024), (1024, 512), (512, 10)]),
    ],
)
def test_parameters_are_those_of_the_described_networks(name, convolutions, linear):
    by_hand = sum(9 * i * o + o + 2 * o for i, o in convolutions) + sum((i + 1) * o for i, o in linear)
    assert sum(p.numel() for p in build(name, num_classes=10, image_size=32).parameters()) == by_hand


def test_fresh_weights_depend_on_the_seed_alone():
    torch.manual_seed(99)
    one = fingerprint(build("resnet32", num_classes=10, image_size=32, seed=1))
    drawn = torch.rand(1)
    torch.manual_seed(99)
    assert torch.equal(drawn, torch.rand(1)), "building must not move the caller's generator"
    assert one == fingerprint(build("resnet32", num_classes=10, image_size=32, seed=1))
    assert one != fingerprint(build("resnet32", num_classes=10, image_size=32, seed=2))


def test_an_unknown_base_lists_the_known():
    with pytest.raises(ConfigError, match=r"'vgg12'.*alexnet.*vgg11"):
        build("vgg12", num_classes=10, image_size=32)


@pytest.mark.parametrize(("classes", "size"), [(1, 32), (10, 31), (10, 0), (-3, 32)])
def test_sizes_out_of_range_are_refused(classes, size):
    with pytest.raises(ConfigError, match="at least"):
        build("vgg11", num_classes=classes, image_size=size)


def test_a_network_from_a_file_is_built(tmp_path):
    (tmp_path / "net.py").write_text(OWN)
    model = build(f"{tmp_path}/net.py:make", num_classes=4, image_size=8)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (OWN, "absent", "defines no function 'absent'"),
        (OWN, "", "name the function"),
        ("def make(): return 3", "make", "returned int"),
        ("def make(n): return n", "make", "without arguments"),
        ("def make(): raise SystemExit(0)", "make", "SystemExit"),
        ("import no_such_module_at_all", "make", "cannot be imported.*no_such_module"),
        ("def make(:", "make", "SyntaxError"),
        (OWN.replace("8 * 8", "9 * 9"), "make", "does not run on images"),
        (OWN.replace("4)", "5)"), "make", r"gives \(2, 5\)"),
    ],
)
def test_a_bad_network_file_is_refused_in_one_line(tmp_path, text, name, message):
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        build(f"{tmp_path}/net.py:{name}", num_classes=4, image_size=8)
    assert "\n" not in str(caught.value)


def test_a_missing_network_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no file .*gone\.py"):
        build(f"{tmp_path}/gone.py:make", num_classes=4, image_size=8)


def _tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))


def test_weights_survive_the_round_trip(tmp_path):
    one, two = _tiny(), _tiny()
    save_weights(one, tmp_path / "w.safetensors")
    assert fingerprint(one) != fingerprint(two)
    load_weights_(two, tmp_path / "w.safetensors")
    assert fingerprint(one) == fingerprint(two)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def _spoilt(state: dict, how: str) -> dict:
    match how:
        case "missing":
            del state["0.bias"]
        case "unexpected":
            state["2.weight"] = torch.zeros(1)
        case "must be":
            state["0.weight"] = torch.zeros(2, 3, 3, 3)
        case "not finite":
            state["1.running_var"] = torch.tensor([1.0, math.nan])
    return state


def test_heads_of_exits_beside_the_weights_are_left_aside(tmp_path):
    one, two = _tiny(), _tiny()
    save_file(one.state_dict() | {"exits.3.classifier.0.bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    load_weights_(two, tmp_path / "w.safetensors")
    assert fingerprint(one) == fingerprint(two)


def test_a_networks_own_part_called_exits_is_filled(tmp_path):
    one, two = (nn.ModuleDict({"exits": nn.Linear(2, 2)}) for _ in range(2))
    save_weights(one, tmp_path / "w.safetensors")
    load_weights_(two, tmp_path / "w.safetensors")
    assert fingerprint(one) == fingerprint(two)


@pytest.mark.parametrize("name", EXITS)
def test_networks_with_exits_of_their_own_have_them_inside(name):
    spec = analyse(export(build(name, num_classes=10, image_size=32), (3, 32, 32))).spec
    places = EXITS[name](spec)
    assert list(places) == sorted(set(places))
    assert all(0 < place < len(spec.segments) for place in places)


@pytest.mark.parametrize("how", ["missing", "unexpected", "must be", "not finite"])
def test_weights_that_do_not_fit_leave_the_model_untouched(tmp_path, how):
    save_file(_spoilt(_tiny().state_dict(), how), tmp_path / "w.safetensors")
    model = _tiny()
    before = fingerprint(model)
    with pytest.raises(DataError, match=how):
        load_weights_(model, tmp_path / "w.safetensors")
    assert fingerprint(model) == before


@pytest.mark.parametrize("data", [b"", b"\x80\x04junk", b"\xff" * 64, None, "truncated"])
def test_files_that_are_not_safetensors_are_refused(tmp_path, data):
    path = tmp_path / "w.safetensors"
    if data == "truncated":
        save_weights(_tiny(), path)
        data = path.read_bytes()[:-3]
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=r"w\.safetensors"):
        load_weights_(_tiny(), path)


def test_a_fingerprint_is_the_hash_of_names_types_shapes_and_bytes_without_counters():
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1, affine=False))
    with torch.no_grad():
        model[0].weight.fill_(1.0), model[0].bias.fill_(2.0)
    one, two, zero = b"\0\0\x80\x3f", b"\0\0\0\x40", b"\0\0\0\0"
    by_hand = b"0.bias torch.float32 (1,)\n" + two + b"0.weight torch.float32 (1, 1)\n" + one
    by_hand += b"1.running_mean torch.float32 (1,)\n" + zero + b"1.running_var torch.float32 (1,)\n" + one
    assert fingerprint(model) == hashlib.sha256(by_hand).hexdigest()
    model[1].num_batches_tracked += 1
    assert fingerprint(model) == hashlib.sha256(by_hand).hexdigest()


def test_a_half_written_file_never_replaces_the_old_one(tmp_path, monkeypatch):
    path = Path(tmp_path / "w.safetensors")
    save_weights(_tiny(), path)
    before = path.read_bytes()
    monkeypatch.setattr("modeltree.files.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(DataError, match="No space left"):
        save_weights(_tiny(), path)
    assert path.read_bytes() == before
