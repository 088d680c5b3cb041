"""Model tree search with two controllers and Monte-Carlo policy gradients [Wang 2020, alg. 1 and 3].

Forward: breadth first over the complete tree, a partition is drawn for every node, then the compression of what stays;
below a partition nothing is drawn. Every complete branch is composed and rewarded. Backward: a parent's reward is the
mean of its children's. Then both controllers are moved along the gradient of the logarithm of their actions'
probability times (reward - baseline), the baseline being a moving average of past rewards at the same node.

With one block and one bandwidth type this is algorithm 1, the search for an optimal branch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from nas.treesearch.controllers import (
    BlockTensors,
    CompressionController,
    PartitionController,
    Sampled,
    draw,
    draw_options,
    scaled_bandwidth,
    vocabulary_of,
    width_of,
)
from nas.treesearch.evaluator import Evaluator
from nas.treesearch.problem import Outcome, Plan, Problem, TreePlan

_WHOLE_BRANCH = 0.8
"""In place of (N - n) / N where a whole branch is one block: there, too, the device half must be explored, or the
search settles on handing the image over before it knows how to compress."""


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig:
    """How the controllers learn.

    batch : episodes (trees) between two updates.
    fair_chances : alpha of [Wang 2020, sec. VII-A]: "no partition" is forced on level n (from 1) with probability
        alpha (N - n) / N, alpha falling to 0 over the first `fair_share` of the episodes. 0 switches it off.
    boost : share of the sampled trees that are made of the optimal branches given, falling to 0 likewise.
    entropy : weight of the controllers' entropy, falling to 0 over the search.
    baseline_decay : of the moving average of rewards.
    """

    episodes: int = 2000
    batch: int = 4
    hidden: int = 32
    lr: float = 0.01
    entropy: float = 0.2
    baseline_decay: float = 0.9
    fair_chances: float = 1.0
    fair_share: float = 0.8
    boost: float = 0.3


class Step(NamedTuple):
    """How a search stands after an update, for curves."""

    episodes: int
    evaluations: int
    best: float
    mean: float
    baseline: float
    entropy: float


@dataclass(kw_only=True)
class BestTree:
    """What a search has found so far: the best tree, what it is worth, and the way there."""

    plans: list[Plan | None]
    outcome: Outcome
    curve: list[Step] = field(default_factory=list)


class Reinforce:
    """A search for the best tree of a problem; the same seed always finds the same tree.

    boosted : a tree made of the optimal branches, one per bandwidth type (optimal branch boosting); it is the first
        tree the search knows, and returns in its samples at first.
    """

    def __init__(
        self, problem: Problem, evaluator: Evaluator, config: ReinforceConfig, *, seed: int,
        boosted: TreePlan | None = None,
    ) -> None:  # fmt: skip
        self.problem, self.evaluator, self.config, self.boosted = problem, evaluator, config, boosted
        vocabulary, width = vocabulary_of(problem), width_of(problem)
        self.blocks = [BlockTensors(block, vocabulary, width) for block in problem.blocks]
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.partition = PartitionController(config.hidden, width)
            self.compression = CompressionController(config.hidden, len(vocabulary))
        parameters = [*self.partition.parameters(), *self.compression.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=config.lr)
        nodes = len(problem.shape.parent)
        self.baseline, self.spread = np.full(nodes, np.nan), np.full(nodes, np.nan)
        self.episodes = 0
        self.found: BestTree | None = None
        if boosted is not None:
            self._remember(boosted, evaluator.tree(boosted).outcome)

    def run(self, *, until: int | None = None) -> Iterator[Step]:
        """Search on, one update at a time, until so many episodes have been played (all by default)."""
        stop = self.config.episodes if until is None else min(until, self.config.episodes)
        while self.episodes < stop:
            yield self.update()

    def update(self) -> Step:
        """Play one batch of episodes and move both controllers."""
        config = self.config
        count = min(config.batch, config.episodes - self.episodes)
        trees, terms = self._sample(count)
        rewards = np.full((count, len(self.baseline)), np.nan)
        outcomes = []
        for i, plans in enumerate(trees):
            evaluated = self.evaluator.tree(plans)
            rewards[i] = evaluated.node_rewards
            outcomes.append(evaluated.outcome.reward)
            self._remember(plans, evaluated.outcome)
        entropy = self._learn(rewards, terms)
        self.episodes += count
        assert self.found is not None
        step = Step(
            self.episodes, self.evaluator.evaluations, self.found.outcome.reward, float(np.mean(outcomes)),
            float(np.nanmean(self.baseline[: self.problem.shape.first[1]])), entropy,
        )  # fmt: skip
        self.found.curve.append(step)
        return step

    def _sample(
        self, count: int
    ) -> tuple[list[list[Plan | None]], list[tuple[np.ndarray, np.ndarray, Sampled, Sampled]]]:
        """`count` trees, and per level (episode, node, partition, compression) of everything drawn."""
        problem, shape = self.problem, self.problem.shape
        fading = max(0.0, 1.0 - self.episodes / max(1.0, self.config.fair_share * self.config.episodes))
        use_boosted = np.zeros(count, dtype=bool)
        if self.boosted is not None:
            use_boosted = self._uniform(count) < self.config.boost * fading
        trees: list[list[Plan | None]] = [[None] * len(shape.parent) for _ in range(count)]
        alive = [(e, node) for e in range(count) for node in range(shape.first[1])]
        terms = []
        for level, block in enumerate(problem.blocks):
            if not alive:
                break
            episodes, nodes = np.array([e for e, _ in alive]), np.array([n for _, n in alive])
            bandwidth = torch.tensor([self._bandwidth(node) for node in nodes])
            forced_place, forced_options = self._forced(level, episodes, nodes, use_boosted, fading)
            tensors = self.blocks[level]
            partition = draw(self.partition(tensors, bandwidth), self.generator, forced_place)
            place, ending = partition.actions // tensors.width, partition.actions % tensors.width
            logits = self.compression(tensors, bandwidth, place)
            compression = draw_options(logits, tensors, place, self.generator, forced_options)
            terms.append((episodes, nodes, partition, compression))
            alive = []
            drawn = zip(
                episodes.tolist(), nodes.tolist(), place.tolist(), ending.tolist(), compression.actions.tolist()
            )
            for e, node, at, how, row in drawn:
                trees[e][node] = Plan(at, tuple(row[: block.device_units(at)]), how)
                if at == block.places:
                    alive.extend((e, child) for child in shape.children[node])
        return trees, terms

    def _forced(
        self, level: int, episodes: np.ndarray, nodes: np.ndarray, use_boosted: np.ndarray, fading: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Places (with their endings) and options that are not drawn but given, -1 elsewhere: fair chances and boosted
        branches."""
        levels, block, width = len(self.problem.blocks), self.problem.blocks[level], self.blocks[level].width
        place = np.full(len(nodes), -1)
        options = np.full((len(nodes), len(block.units)), -1)
        share = (levels - (level + 1)) / levels if levels > 1 else _WHOLE_BRANCH
        chance = self.config.fair_chances * fading * share
        place[self._uniform(len(nodes)) < chance] = block.places * width
        if self.boosted is not None:
            for row in np.flatnonzero(use_boosted[episodes]):
                plan = self.boosted[nodes[row]]
                if plan is not None:
                    place[row] = plan.partition * width + plan.ending
                    options[row, : len(plan.options)] = plan.options
        return torch.from_numpy(place), torch.from_numpy(options)

    def _learn(self, rewards: np.ndarray, terms: Sequence[tuple[np.ndarray, np.ndarray, Sampled, Sampled]]) -> float:
        advantage = self._advantages(rewards)
        fading = max(0.0, 1.0 - self.episodes / self.config.episodes)
        gain = torch.zeros(())
        entropy, count = torch.zeros(()), 0
        for episodes, nodes, partition, compression in terms:
            weight = torch.from_numpy(advantage[episodes, nodes].astype(np.float32))
            gain = gain + (weight * (partition.log_probability + compression.log_probability)).sum()
            entropy = entropy + (partition.entropy + compression.entropy).sum()
            count += len(nodes)
        loss = -(gain + self.config.entropy * fading * entropy) / count
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return float(entropy.detach()) / count

    def _advantages(self, rewards: np.ndarray) -> np.ndarray:
        """(reward - baseline) per node, in units of the rewards' usual spread; the averages move on."""
        met = ~np.all(np.isnan(rewards), axis=0)
        mean = np.nanmean(rewards[:, met], axis=0)
        fresh = met & np.isnan(self.baseline)
        self.baseline[fresh] = np.nanmean(rewards[:, fresh], axis=0) if fresh.any() else []
        difference = rewards - self.baseline
        size = np.nanmean(np.abs(difference[:, met]), axis=0)
        self.spread[met & np.isnan(self.spread)] = size[np.isnan(self.spread[met])]
        decay = self.config.baseline_decay
        self.baseline[met] = decay * self.baseline[met] + (1 - decay) * mean
        self.spread[met] = decay * self.spread[met] + (1 - decay) * size
        return np.clip(difference / np.maximum(self.spread, 1e-3), -3.0, 3.0)

    def _remember(self, plans: TreePlan, outcome: Outcome) -> None:
        if self.found is None or self.problem.rank(outcome) > self.problem.rank(self.found.outcome):
            curve = [] if self.found is None else self.found.curve
            self.found = BestTree(plans=list(plans), outcome=outcome, curve=curve)

    def _bandwidth(self, node: int) -> float:
        types = self.problem.types(int(node))
        return float(np.mean([scaled_bandwidth(self.problem.bandwidth_mbps[k]) for k in types]))

    def _uniform(self, count: int) -> np.ndarray:
        return torch.rand(count, generator=self.generator).numpy()
