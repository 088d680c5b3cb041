"""The agents on CartPole-v1, a task of others, beside the DQN of stable-baselines3 with the settings of its authors.

    python benchmarks/standard_task.py [--seeds 3] [--theirs PYTHON]

PYTHON is that of an environment with stable-baselines3; without it ours run alone. The pole pays 1 a step, 500 at most,
20 or so to random actions. Twenty episodes without exploration follow each training; one line a training, as Markdown.
"""

import argparse
import json
import subprocess
import time

import gymnasium
import numpy as np
import torch

from nas.agents import AGENTS
from nas.jobs.machine import commit, processor, today

OURS = {
    "sac": {"steps": 12_000, "batch": 64},
    "dqn": {"steps": 25_000, "batch": 64, "renew": 100, "explore": 0.3},
}
EPISODES = 20

THEIRS = """
import json, sys, time
import gymnasium, numpy as np, torch
from stable_baselines3 import DQN
torch.set_num_threads(1)
seed, episodes = int(sys.argv[1]), int(sys.argv[2])
# rl-baselines3-zoo, hyperparams/dqn.yml, CartPole-v1
agent = DQN(
    "MlpPolicy", gymnasium.make("CartPole-v1"), learning_rate=2.3e-3, batch_size=64, buffer_size=100_000,
    learning_starts=1000, gamma=0.99, target_update_interval=10, train_freq=256, gradient_steps=128,
    exploration_fraction=0.16, exploration_final_eps=0.04, policy_kwargs={"net_arch": [256, 256]}, seed=seed,
)
began = time.process_time()
agent.learn(50_000)
spent, env, lasted = time.process_time() - began, gymnasium.make("CartPole-v1"), []
for episode in range(episodes):
    seen, over, total = env.reset(seed=1000 + episode)[0], False, 0
    while not over:
        seen, reward, ended, cut_off, _ = env.step(int(agent.predict(seen, deterministic=True)[0]))
        over, total = ended or cut_off, total + reward
    lasted.append(total)
print(json.dumps([lasted, spent]))
"""


def ours(name: str, seed: int) -> tuple[list[float], float]:
    """Returns of the episodes after one training of ours, and its CPU time in s."""
    agent = AGENTS[name]
    began = time.process_time()
    found = agent.train(gymnasium.make("CartPole-v1"), agent.config(seed=seed, **OURS[name]))
    spent, env, lasted = time.process_time() - began, gymnasium.make("CartPole-v1"), []
    for episode in range(EPISODES):
        seen, over, total = env.reset(seed=1000 + episode)[0], False, 0.0
        while not over:
            seen, reward, ended, cut_off, _ = env.step(found.act(seen))
            over, total = ended or cut_off, total + float(reward)
        lasted.append(total)
    return lasted, spent


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--theirs", help="Python of an environment with stable-baselines3")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}, {today()}, commit {commit()}\n\n| agent | steps | seed | mean return | worst episode | "
          "training, s of CPU |\n|---|---|---|---|---|---|")  # fmt: skip
    for seed in range(options.seeds):
        for name in OURS:
            show(name, OURS[name]["steps"], seed, *ours(name, seed))
        if options.theirs:
            command = [options.theirs, "-W", "ignore", "-c", THEIRS, str(seed), str(EPISODES)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            show("stable-baselines3 dqn", 50_000, seed, *json.loads(done.stdout.splitlines()[-1]))


def show(name: str, steps: int, seed: int, lasted: list[float], spent_s: float) -> None:
    """A line."""
    print(f"| {name} | {steps} | {seed} | {np.mean(lasted):.1f} | {min(lasted):.0f} | {spent_s:.0f} |", flush=True)


if __name__ == "__main__":
    main()
