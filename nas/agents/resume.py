"""A training that was interrupted goes on where it stopped, and ends with the weights of one that was not."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from modeltree.errors import ConfigError, DataError
from nas.agents.networks import Stack
from nas.agents.replay_buffer import Replay
from nas.jobs.checkpoint import load_state, save_state

_COLUMNS = ("observation", "following", "action", "reward", "ended")


class Training:
    """All that a training with a replay buffer has come to; written between two episodes, where no other state is."""

    def __init__(
        self, env: gymnasium.Env, config: Any, network: Stack, target: Stack, optimiser: torch.optim.Optimizer,
        replay: Replay, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.env, self.network, self.target, self.optimiser = env, network, target, optimiser
        self.replay, self.rng, self.returns = replay, rng, list[float]()
        self.run = {name: repr(value) for name, value in asdict(config).items()}

    def save(self, path: Path, done: int) -> None:
        """After `done` steps; the environment will be reset next."""
        held = len(self.replay)
        save_state(path, {
            "run": self.run, "done": done, "returns": list(self.returns), "seen": self.replay.seen,
            "network": self.network.state_dict(), "target": self.target.state_dict(),
            "optimiser": self.optimiser.state_dict(), "rng": json.dumps(self.rng.bit_generator.state),
            "env": json.dumps(self.env.unwrapped.np_random.bit_generator.state),
            "replay": {name: torch.from_numpy(getattr(self.replay, name)[:held].copy()) for name in _COLUMNS},
        })  # fmt: skip

    def load_(self, path: Path, seed: int) -> int:
        """Take up what `save` wrote; returns how many steps it holds.

        Raises
        ------
        ConfigError : it is of another training. DataError : it is no checkpoint of one.
        """
        state = load_state(path)
        try:
            if state["run"] != self.run:
                raise ConfigError(f"checkpoint {path} is of another training: delete it, or pass what that was given")
            self.network.load_state_dict(state["network"])
            self.target.load_state_dict(state["target"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.rng.bit_generator.state = json.loads(state["rng"])
            for name, column in state["replay"].items():
                getattr(self.replay, name)[: len(column)] = column.numpy()
            self.replay.seen, self.returns = int(state["seen"]), [float(one) for one in state["returns"]]
            self.env.reset(seed=seed)
            self.env.unwrapped.np_random.bit_generator.state = json.loads(state["env"])
            return int(state["done"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise DataError(f"{path} is no checkpoint of a training: delete it to start afresh") from error
