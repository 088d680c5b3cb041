"""Run by Python of an environment with torchrl: its discrete SAC losses on a random batch, into an .npz.

    python torchrl_losses.py OUT.npz

Holds the batch, the weights of the actor, of the two critics and of their targets, the losses, and their gradients.
"""

import sys

import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import DiscreteSACLoss
from torchrl.objectives.utils import ValueEstimators

INPUTS, HIDDEN, ACTIONS, COUNT = 4, 16, 7, 32
ALPHA, GAMMA, TARGET_ENTROPY = 0.3, 0.95, 1.1


def network():
    layers = [nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, ACTIONS)]
    return nn.Sequential(*layers)


def main():
    torch.manual_seed(0)
    actor = ProbabilisticActor(
        TensorDictModule(network(), in_keys=["observation"], out_keys=["logits"]),
        in_keys=["logits"], distribution_class=torch.distributions.Categorical,
    )  # fmt: skip
    critic = TensorDictModule(network(), in_keys=["observation"], out_keys=["action_value"])
    loss = DiscreteSACLoss(
        actor, critic, action_space="categorical", num_actions=ACTIONS, num_qvalue_nets=2, loss_function="l2",
        alpha_init=ALPHA, target_entropy=TARGET_ENTROPY, delay_qvalue=True,
    )  # fmt: skip
    loss.make_value_estimator(ValueEstimators.TD0, gamma=GAMMA)
    with torch.no_grad():
        for value in loss.target_qvalue_network_params.values(True, True):
            value.add_(0.1 * torch.randn(value.shape))
    batch = {
        "observation": torch.randn(COUNT, INPUTS), "action": torch.randint(ACTIONS, (COUNT,)),
        "reward": torch.randn(COUNT, 1), "following": torch.randn(COUNT, INPUTS),
        "ended": torch.rand(COUNT, 1) < 0.3,
    }  # fmt: skip
    told = {
        "observation": batch["following"], "reward": batch["reward"], "terminated": batch["ended"],
        "done": batch["ended"],
    }  # fmt: skip
    found = loss(TensorDict(
        {"observation": batch["observation"], "action": batch["action"], "next": told}, batch_size=[COUNT]
    ))  # fmt: skip
    (found["loss_actor"] + found["loss_qvalue"] + found["loss_alpha"]).backward()
    arrays = {name: value.numpy() for name, value in batch.items()}
    held = {
        "actor": loss.actor_network_params, "critics": loss.qvalue_network_params,
        "targets": loss.target_qvalue_network_params,
    }  # fmt: skip
    for which, parameters in held.items():
        for key, value in parameters.flatten_keys(".").items():
            arrays[f"{which}.{key}"] = value.detach().numpy()
            if value.grad is not None:
                arrays[f"grad.{which}.{key}"] = value.grad.numpy()
    arrays |= {key: found[key].detach().numpy() for key in ("loss_actor", "loss_qvalue", "loss_alpha", "entropy")}
    np.savez(sys.argv[1], **arrays)


if __name__ == "__main__":
    main()
