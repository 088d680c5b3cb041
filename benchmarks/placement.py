"""Blocks over edge servers [Li 2023]: convergence of the agents, the sweeps, and the table of blocks.

    python benchmarks/placement.py blocks                                 rewrites nas/decisions/placement/blocks.json
    python benchmarks/placement.py convergence OUT [--seeds 5]            curves and distances in the default world
    python benchmarks/placement.py sweep servers OUT [--networks vgg16]   servers, blocks, release, tolerance, capacity
    python benchmarks/placement.py page OUT PAGE.html                     charts of what lies in OUT; energy is in each

Every training is one JSON file in OUT and is not repeated. Delays are computed from the model of the world, not timed;
`gap` is the distance to the exact optimum, or where that is out of reach to the local search, in percent of its reward.
"""

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.agents.a3c import A3cConfig
from nas.agents.a3c.joint import MOST_OUTPUTS, OneHeadForAll, train_joint
from nas.agents.a3c.multitask import train_multitask
from nas.agents.distributed_dqn import DqnConfig, train_dqn
from nas.decisions.placement.blocks import NETWORKS, load_chain
from nas.decisions.placement.delays import Delays
from nas.decisions.placement.environment import Episodes, PlacementVectorEnv
from nas.decisions.placement.exact import enumerable, exact
from nas.decisions.placement.planners import PLANNERS
from nas.decisions.placement.world import World

SWEEPS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "servers": ("servers", (2, 3, 4, 5, 6, 7, 8, 9)),
    "blocks": ("blocks", (3, 6, 9, 12, 15, 18)),
    "release": ("release", (30.0, 50.0, 70.0, 90.0, 110.0)),
    "tolerance": ("tolerance_s", tuple((float(s), float(s)) for s in range(1, 8))),
    "capacity": ("capacity", (0.5, 1.0, 2.0, 4.0, 8.0)),
}
AGENTS = ("multitask", "joint", "dqn")
SLOTS = 200


def trained(
    world: World, agent: str, seed: int, episodes: int
) -> tuple[Callable[[np.ndarray], np.ndarray], list[float], float]:
    """A policy from observations to placements, its curve, and the seconds of its training."""
    make = functools.partial(PlacementVectorEnv, world=world)
    if agent == "dqn":
        learnt = train_dqn(make, DqnConfig(episodes=episodes, slots=world.slots, seed=seed))
        return learnt.network.best, learnt.curve, learnt.seconds
    config = A3cConfig(episodes=episodes, slots=world.slots, seed=seed)
    if agent == "joint":  # one head can swap two blocks at once: it needs no starts
        learnt = train_joint(make, dataclasses.replace(config, starts=1))
        shape = OneHeadForAll((world.hosts,) * world.blocks)
        actor = learnt.network.export()
        return (lambda observations: shape.actions(actor.best(observations))), learnt.curve, learnt.seconds
    learnt = train_multitask(make, config)
    return learnt.network.export().best, learnt.curve, learnt.seconds


def path_of(out: Path, world: World, agent: str, seed: int, episodes: int) -> Path:
    """Where the result of a training lies."""
    key = json.dumps([dataclasses.asdict(world), agent, seed, episodes], sort_keys=True)
    return out / f"{agent}-{seed}-{_digest(key)}.json"


def held(out: Path, world: World, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """What there is of a world, by agent; nothing is trained."""
    by_agent = {}
    for agent in (*AGENTS, "greedy", "apdi", "rpdi", "search"):
        episodes = episodes_of(agent, options)
        paths = [path_of(out, world, agent, seed, episodes) for seed in range(options.seeds)]
        if results := [json.loads(path.read_text()) for path in paths if path.exists()]:
            by_agent[agent] = results
    return by_agent


def episodes_of(agent: str, options: argparse.Namespace) -> int:
    """Of a training; 0 for what does not learn."""
    return 0 if agent not in AGENTS else options.dqn_episodes if agent == "dqn" else options.episodes


def write_results(out: Path, page: Path, options: argparse.Namespace) -> None:
    """The page of all that lies in `out`."""
    from placement_page import write_page

    sweeps: dict[str, dict[float, Any]] = {}
    for title, (name, values) in SWEEPS.items():
        for network in options.networks:
            for value in values:
                at = value[0] if isinstance(value, tuple) else value
                if results := held(out, World(network=network, **{name: value}), options):
                    sweeps.setdefault(f"{network}, {title}", {})[float(at)] = results
    curves = {network: held(out, World(network=network), options) for network in options.networks}
    write_page(page, sweeps=sweeps, curves={network: results for network, results in curves.items() if results})


def one(out: Path, world: World, agent: str, seed: int, episodes: int) -> dict[str, Any]:
    """Train and judge one agent, or take what is there."""
    path = path_of(out, world, agent, seed, episodes)
    if path.exists():
        return json.loads(path.read_text())
    policy: Callable[[np.ndarray], np.ndarray] | None = None
    curve, seconds = [], 0.0
    cpu = time.process_time()
    if agent in AGENTS:
        policy, curve, seconds = trained(world, agent, seed, episodes)
    cpu = time.process_time() - cpu
    judged = Episodes(world, SLOTS)
    rng = np.random.default_rng(10_000 + seed)
    judged.reset(np.ones(SLOTS, bool), rng)
    slots, observations, delays = judged.slots, judged.observe(), Delays(world)
    assert slots is not None
    placement = PLANNERS[agent](world, slots, rng) if policy is None else policy(observations)
    outcome, highest = delays.outcome(slots, placement), best_reward(world, seed)
    decision = 0.0
    if policy is not None:
        decision = decision_ms(policy, observations)
    reward = float(outcome.reward.mean())
    result = {
        "agent": agent, "seed": seed, "episodes": episodes, "reward": reward, "best": highest,
        "gap": 100 * (highest - reward) / abs(highest), "total_s": float(outcome.total_s.mean()),
        "edge_s": float(outcome.edge_s.mean()), "local_s": float(outcome.local_s.mean()),
        "energy_j": float(outcome.energy_j.mean()), "late": float(outcome.late.mean()), "cpu_s": cpu,
        "seconds": seconds, "decision_ms": decision, "curve": curve, "converged": converged(curve),
    }  # fmt: skip
    path.write_text(json.dumps(result))
    return result


@functools.cache
def best_reward(world: World, seed: int) -> float:
    """The mean of the optimum, or of the search, over the slots that agents of this seed are judged on."""
    episodes, rng = Episodes(world, SLOTS), np.random.default_rng(10_000 + seed)
    episodes.reset(np.ones(SLOTS, bool), rng)
    slots = episodes.slots
    assert slots is not None
    tried = enumerable(world) and world.hosts**world.blocks <= 20_000
    best = exact(world, slots) if tried else PLANNERS["search"](world, slots, rng)
    return float(Delays(world).reward(slots, best).mean())


def decision_ms(policy: Callable[[np.ndarray], np.ndarray], observations: np.ndarray, times: int = 1000) -> float:
    """The median of so many decisions, one slot each; `seen` is (B, inputs)."""
    spent = []
    for turn in range(times):
        row = turn % len(observations)
        began = time.perf_counter()
        policy(observations[row : row + 1])
        spent.append(time.perf_counter() - began)
    return 1e3 * float(np.median(spent))


def _digest(key: str) -> str:
    import hashlib

    return hashlib.sha256(key.encode()).hexdigest()[:12]


def converged(curve: list[float], share: float = 0.02) -> int:
    """The first episode from which on the smoothed curve stays within a share of its final level; 0 without a curve."""
    if len(curve) < 5:
        return 0
    smooth = np.convolve(curve, np.ones(5) / 5, "valid")
    level = float(np.mean(smooth[-5:]))
    off = np.flatnonzero(np.abs(smooth - level) > share * abs(level))
    return int(off[-1]) + 2 if len(off) else 1


def table(rows: list[tuple[str, list[dict[str, Any]]]]) -> None:
    """A line for every agent, means over seeds."""
    names = ("reward", "gap", "total_s", "edge_s", "local_s", "energy_j", "converged", "cpu_s", "decision_ms")
    print("| |" + "|".join(names) + "|\n|" + "---|" * (len(names) + 1))
    for title, results in rows:
        means = [np.mean([one[name] for one in results]) for name in names]
        spread = np.std([one["reward"] for one in results])
        print(f"| {title} (+-{spread:.2f}, {len(results)} seeds) |" + "|".join(f"{value:.2f}" for value in means) + "|")


def compared(out: Path, world: World, options: argparse.Namespace, label: str) -> None:
    rows = []
    for agent in (*options.agents, "greedy", "apdi", "rpdi", "search"):
        if agent == "joint" and world.hosts**world.blocks > MOST_OUTPUTS:
            continue
        episodes = episodes_of(agent, options)
        rows.append((f"{label} {agent}", [one(out, world, agent, seed, episodes) for seed in range(options.seeds)]))
    table(rows)


def write_blocks() -> None:
    from nas.bases import build
    from nas.decisions.placement.blocks import atoms_of
    from transforms import analyse, export

    atoms = {}
    for name in NETWORKS:
        spec = analyse(export(build(name, num_classes=10, image_size=32), (3, 32, 32))).spec
        atoms[name] = {"input_bytes": spec.places[0].bytes, "atoms": [list(atom) for atom in atoms_of(spec)]}
    text = ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in atoms.items())
    (Path(__file__).parents[1] / "nas/decisions/placement/blocks.json").write_text(f"{{\n{text}\n}}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("blocks", "convergence", "sweep", "page"))
    parser.add_argument("rest", nargs="*", help="OUT; or one of the sweeps and OUT")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--dqn-episodes", type=int, default=2000)
    parser.add_argument("--ends", action="store_true", help="of a sweep: the first and the last value only")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--agents", nargs="+", default=list(AGENTS), choices=AGENTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "blocks":
        write_blocks()
        return
    if options.what == "page":
        write_results(Path(options.rest[0]), Path(options.rest[1]), options)
        return
    out = Path(options.rest[-1])
    out.mkdir(parents=True, exist_ok=True)
    if options.what == "convergence":
        for network in options.networks:
            compared(out, World(network=network), options, network)
        return
    name, every = SWEEPS[options.rest[0]]
    for network in options.networks:
        parts = len(load_chain(network).atoms)
        values = [value for value in every if name != "blocks" or value <= parts]
        for value in values[:: len(values) - 1] if options.ends else values:
            compared(out, World(network=network, **{name: value}), options, f"{network} {name}={value}")


if __name__ == "__main__":
    main()
