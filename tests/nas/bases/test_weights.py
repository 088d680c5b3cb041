"""Weights as people have them: what is done to them is said, and what cannot be a network's is refused."""

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from modeltree.errors import DataError
from nas.bases import fingerprint, load_weights_


def tiny():
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3, bias=False)
        self.b = nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight


class Spring:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def filled(path):
    """(a model filled from `path`, what was said)."""
    model = tiny()
    return model, load_weights_(model, path)


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda state: state, ()),
        (lambda state: {"state_dict": state, "epoch": 3}, ("taken from 'state_dict'",)),
        (lambda state: {"model": {"state_dict": state}}, ("taken from 'model'", "taken from 'state_dict'")),
        (lambda state: {f"module.{k}": v for k, v in state.items()}, ("'module.' taken off the keys",)),
        (
            lambda state: {"model": {f"_orig_mod.module.{k}": v for k, v in state.items()}},
            ("taken from 'model'", "'_orig_mod.' taken off the keys", "'module.' taken off the keys"),
        ),
    ],
)
def test_a_state_dict_of_torch_fills_a_network_and_what_was_done_is_said(tmp_path, wrap, said):
    one = tiny()
    torch.save(wrap(one.state_dict()), tmp_path / "w.pth")
    two, words = filled(tmp_path / "w.pth")
    assert fingerprint(two) == fingerprint(one)
    assert words == said


def test_half_precision_is_raised_and_said(tmp_path):
    one = tiny().half()
    torch.save(one.state_dict(), tmp_path / "w.pth")
    save_file(one.state_dict(), tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        two, words = filled(tmp_path / name)
        assert words == ("float16 made float32",)
        assert torch.equal(two[0].weight, one[0].weight.float())


def test_tied_weights_saved_once_fill_all_of_their_names(tmp_path):
    one, two = Tied(), Tied()
    save_model(one, str(tmp_path / "w.safetensors"))
    assert load_weights_(two, tmp_path / "w.safetensors") == ("1 tied weight filled from their other names",)
    assert torch.equal(two.a.weight, one.a.weight)
    assert two.b.weight is two.a.weight


def test_weights_that_are_not_tied_must_all_be_there(tmp_path):
    state = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).state_dict()
    save_file({"0.weight": state["0.weight"]}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"missing 1\.weight"):
        load_weights_(
            nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)), tmp_path / "w.safetensors"
        )


def test_a_prefix_that_is_the_networks_own_stays(tmp_path):
    one, two = (nn.ModuleDict({"model": nn.Linear(2, 2)}) for _ in range(2))
    torch.save(one.state_dict(), tmp_path / "w.pth")
    assert load_weights_(two, tmp_path / "w.pth") == ()
    assert fingerprint(two) == fingerprint(one)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda s: s | {"1.running_var": torch.tensor([1.0, -0.5])}, "1.running_var holds negative variances"),
        (lambda s: s | {"0.weight": torch.ones(2, 3, 1, 1, dtype=torch.int8)}, "0.weight is int8, must be float32"),
        (lambda s: s | {"0.bias": torch.ones(2, dtype=torch.float8_e4m3fn)}, "float8_e4m3fn, must be float16 or wider"),
        (lambda s: s | {"0.bias": torch.ones(2, dtype=torch.complex64)}, "complex64, must be float32"),
        (lambda s: s | {"0.bias": torch.tensor([0.0, float("nan")])}, "0.bias holds values that are not finite"),
    ],
)
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_what_no_network_can_have_is_refused_and_changes_nothing(tmp_path, spoil, why, kind):
    path, model = tmp_path / f"w.{kind}", tiny()
    state, before = spoil(tiny().state_dict()), fingerprint(model)
    torch.save(state, path) if kind == "pth" else save_file(state, path)
    with pytest.raises(DataError, match=why):
        load_weights_(model, path)
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    "value",
    [[1, 2], {"a": 1}, {}, {1: torch.zeros(1)}, torch.zeros(2), {"epoch": 3, "optimizer": {"x": torch.zeros(1)}}],
)
def test_a_torch_file_that_holds_no_state_dict_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(DataError, match="state dict"):
        filled(tmp_path / "w.pth")


def test_a_pickled_object_is_refused_and_not_run(tmp_path):
    for name, value in {"spring": {"0.weight": Spring(str(tmp_path / "sprung"))}, "whole": tiny()}.items():
        torch.save(value, tmp_path / f"{name}.pth")
        with pytest.raises(DataError, match="no plain state dict"):
            filled(tmp_path / f"{name}.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("data", [b"PK", b"PK\3\4" + bytes(99), b"\x80\x02.", b"\x80\x02}q\0.", b"\x80\x04N."])
def test_a_damaged_torch_file_is_refused(tmp_path, data):
    (tmp_path / "w.pth").write_bytes(data)
    with pytest.raises(DataError, match=r"w\.pth"):
        filled(tmp_path / "w.pth")
