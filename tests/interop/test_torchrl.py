"""Our discrete soft actor-critic against torchrl's, which was written by others: losses and gradients of one batch."""

import math
import os
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from environments import environment, needs_venv

from nas.agents.networks import Stack
from nas.agents.replay_buffer import Batch
from nas.agents.sac import actor_loss, critic_loss, critic_targets, temperature_loss

pytestmark = needs_venv
SCRIPT = Path(__file__).with_name("torchrl_losses.py")
ALPHA, GAMMA, TARGET_ENTROPY = 0.3, 0.95, 1.1
"""The script's."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """torchrl without its needs beside ours: torch itself is this environment's."""
    packages = ("--no-deps", "torchrl==0.14.1", "tensordict==0.15.3", "pyvers", "cloudpickle", "orjson")
    python = environment("torchrl", *packages)
    out = tmp_path_factory.mktemp("torchrl") / "losses.npz"
    told = dict(os.environ, PYTHONPATH=sysconfig.get_path("purelib"))
    subprocess.run([python, "-W", "ignore", SCRIPT, out], check=True, timeout=200, env=told)
    with np.load(out, allow_pickle=False) as found:
        return dict(found)


def stack(theirs, which):
    """Our networks with torchrl's weights, whose linear layers are the other way around."""
    prefix = {"actor": "actor.module.0.module"}.get(which, f"{which}.module")
    held = [(theirs[f"{prefix}.{i}.weight"], theirs[f"{prefix}.{i}.bias"]) for i in (0, 2, 4)]
    if which == "actor":
        held = [(weight[None], bias[None]) for weight, bias in held]
    sizes = [held[0][0].shape[2], *(weight.shape[1] for weight, _ in held)]
    ours = Stack(sizes, generator=torch.Generator(), count=len(held[0][0]))
    with torch.no_grad():
        for i, (weight, bias) in enumerate(held):
            ours.weights[i].copy_(torch.from_numpy(weight.transpose(0, 2, 1)))
            ours.biases[i].copy_(torch.from_numpy(bias[:, None]))
    return ours


def batch(theirs):
    return Batch(
        observation=torch.from_numpy(theirs["observation"]), action=torch.from_numpy(theirs["action"]),
        reward=torch.from_numpy(theirs["reward"][:, 0]), following=torch.from_numpy(theirs["following"]),
        ended=torch.from_numpy(theirs["ended"][:, 0].astype(np.float32)),
    )  # fmt: skip


def check_gradients(theirs, which, ours, factor=1.0):
    prefix = {"actor": "grad.actor.module.0.module"}.get(which, f"grad.{which}.module")
    for i, layer in enumerate((0, 2, 4)):
        weight, bias = (theirs[f"{prefix}.{layer}.{kind}"] * factor for kind in ("weight", "bias"))
        mine = ours.weights[i].grad.numpy().transpose(0, 2, 1)
        np.testing.assert_allclose(mine, weight.reshape(mine.shape), rtol=1e-3, atol=1e-6)
        mine = ours.biases[i].grad.numpy()[:, 0]
        np.testing.assert_allclose(mine, bias.reshape(mine.shape), rtol=1e-3, atol=1e-6)


def test_the_critics_loss_is_half_of_torchrls_which_has_no_half(theirs):
    critics, data = stack(theirs, "critics"), batch(theirs)
    ours = critic_loss(
        critics, data, critic_targets(stack(theirs, "actor"), stack(theirs, "targets"), data, ALPHA, GAMMA)
    )
    ours.backward()
    assert ours.item() == pytest.approx(float(theirs["loss_qvalue"]) / 2, rel=1e-5)
    check_gradients(theirs, "critics", critics, 0.5)


def test_the_policys_loss_is_torchrls(theirs):
    actor, critics, data = stack(theirs, "actor"), stack(theirs, "critics"), batch(theirs)
    ours, entropy = actor_loss(actor, critics, data, ALPHA)
    ours.backward()
    assert ours.item() == pytest.approx(float(theirs["loss_actor"]), rel=1e-5)
    assert float(entropy.mean()) == pytest.approx(float(theirs["entropy"]), rel=1e-5)
    check_gradients(theirs, "actor", actor)


def test_the_temperatures_loss_is_torchrls_with_alpha_in_place_of_its_logarithm(theirs):
    _, entropy = actor_loss(stack(theirs, "actor"), stack(theirs, "critics"), batch(theirs), ALPHA)
    log_alpha = torch.tensor(math.log(ALPHA), requires_grad=True)
    ours = temperature_loss(log_alpha, entropy, TARGET_ENTROPY).item()
    assert ours / ALPHA == pytest.approx(float(theirs["loss_alpha"]) / math.log(ALPHA), rel=1e-4)
