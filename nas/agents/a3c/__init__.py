"""Asynchronous actor-critic [Li 2023]: its training, with a head a block (`multitask`) or one for all (`joint`)."""

from nas.agents.a3c.training import A3cConfig, MakeEnv, Tally, Trained, by_chance, train

__all__ = ["A3cConfig", "MakeEnv", "Tally", "Trained", "by_chance", "train"]
