"""Choosing exit, cut and bits for the bandwidth of the moment: the environment, the agents, and how they compare."""

from collections.abc import Callable
from typing import Any, NamedTuple

from nas.agents import dqn, sac
from nas.agents.networks import Learnt


class Agent(NamedTuple):
    """How an agent is told what to do (a frozen config with `steps` and `seed`), and its training."""

    config: type[Any]
    train: Callable[..., Learnt]


AGENTS = {
    "sac": Agent(sac.SacConfig, sac.train),
    "dqn": Agent(dqn.DqnConfig, dqn.train),
    "ddqn": Agent(dqn.DdqnConfig, dqn.train),
}

RESUMABLE = ("dqn", "ddqn")
"""Those whose `train` takes a `checkpoint`."""

__all__ = ["AGENTS", "RESUMABLE", "Agent", "Learnt"]
