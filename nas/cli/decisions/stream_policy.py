"""`nas policy train|eval --env stream`: agents that decide tasks of a stream, trained and compared [Song 2021]."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeltree.errors import ConfigError, unknown
from modeltree.files import check_writable

if TYPE_CHECKING:
    from modeltree.link.traces import Trace

STREAM, LEAVES = "stream", "leaves"
ENVIRONMENTS = (LEAVES, STREAM)


@dataclass(frozen=True, kw_only=True)
class StreamSetting:
    """What a stream is like, as the command line says it. costs : a file; the shipped ones unless given.
    trace : of the link, in place of `mbps`."""

    costs: Path | None
    p: float
    k: float
    devices: int
    slot_ms: float
    mbps: float
    trace: "Trace | None" = None

    def arguments(self) -> dict[str, Any]:
        """For `nas.decisions.streams.environment.setting`."""
        from modeltree.streams.costs import load_table

        table = None if self.costs is None else load_table(self.costs)
        return {
            "table": table, "strict": table is None, "p": self.p, "k": self.k, "devices": self.devices,
            "slot_ms": self.slot_ms, "mbps": self.mbps if self.trace is None else self.trace.mean_mbps,
            "trace": self.trace,
        }  # fmt: skip


def train_stream(
    setting: StreamSetting, out: Path, *, agent: str, steps: int | None, seed: int, events: Path | None, quiet: bool
) -> None:
    """Train an agent on drawn streams and write its policy; one that was interrupted goes on when started again."""
    import torch

    from nas.agents import AGENTS, RESUMABLE
    from nas.cli.display.progress import stages
    from nas.decisions.streams.environment import TaskStreamEnv
    from runtime.stream.policy_file import StreamPolicyHeader, write_stream_policy

    if agent not in AGENTS:
        raise unknown("agent", agent, AGENTS)
    if out.suffix != ".npz":
        raise ConfigError(f"--out is {out}: a policy's file must end in .npz")
    check_writable(out)
    env = TaskStreamEnv(**setting.arguments())
    torch.set_num_threads(1)  # a seed gives the same policy on one thread alone
    told: dict[str, Any] = {"seed": seed} | ({} if steps is None else {"steps": steps})
    checkpoint = out.with_name(out.name + ".part")
    kept = {"checkpoint": checkpoint} if agent in RESUMABLE else {}
    with stages(quiet=quiet) as progress:
        learnt = AGENTS[agent].train(
            env, AGENTS[agent].config(**told), lambda done, total, text: progress("agent", done, total, text), **kept
        )
    network, arrivals = learnt.export(), env.arrivals
    header = StreamPolicyHeader(
        agent=agent, seed=seed, p=arrivals.p, k=arrivals.k, devices=arrivals.devices, slot_ms=arrivals.slot_ms,
        mbps=env.system.mbps, longest_ms=env.observer.longest_ms, activation=network.activation,
    )  # fmt: skip
    write_stream_policy(out, header, env.system.table, network)
    checkpoint.unlink(missing_ok=True)
    if events is not None:
        _write_events(events, learnt.returns)
    print(f"{out}: {agent}, seed {seed}, p = {arrivals.p:g}, k = {arrivals.k:g}, {arrivals.devices} devices; "
          f"the last streams' gains {_mean(learnt.returns[-20:]):.2f} of 100 tasks, exploring")  # fmt: skip


def evaluate_stream(
    setting: StreamSetting, files: Sequence[Path], *, streams: int, seed: int, out: Path
) -> None:  # fmt: skip
    """Play drawn streams of 100 tasks with every solver and every file; print gains, write streams.csv."""
    import time

    import numpy as np

    from modeltree.files import write_text
    from modeltree.streams.system import Planner, Scripted, play, total_gain
    from nas.decisions.streams.dynamic import dynamic_programme
    from nas.decisions.streams.environment import setting as system_of
    from nas.decisions.streams.exact import exact
    from runtime.stream.opening import PLANNER_NAMES, open_planner

    system, arrivals = system_of(**setting.arguments())
    planners: dict[str, Planner] = {name: open_planner(name, system, arrivals) for name in PLANNER_NAMES}
    planners |= {file.stem: open_planner(str(file), system) for file in files}
    drawn = [arrivals.draw(100, np.random.default_rng([seed, number])) for number in range(streams)]
    gains: dict[str, list[float]] = {}
    decision_us: dict[str, float] = {}
    for name, planner in planners.items():
        began_s = time.perf_counter()
        gains[name] = [total_gain(play(system, tasks, planner, devices=arrivals.devices)) for tasks in drawn]
        decision_us[name] = 1e6 * (time.perf_counter() - began_s) / (100 * streams)
    if system.strict:
        plans = [dynamic_programme(system, tasks) for tasks in drawn]
        gains["dp"] = [
            total_gain(play(system, tasks, Scripted(actions=plan), devices=arrivals.devices))
            for tasks, plan in zip(drawn, plans, strict=True)
        ]
        gains["exact"] = [
            exact(system, tasks, devices=arrivals.devices, known=[plan], most_states=20_000).gain
            for tasks, plan in zip(drawn, plans, strict=True)
        ]
    for name, values in sorted(gains.items(), key=lambda one: -_mean(one[1])):
        us = f"  {decision_us[name]:8.0f} us a task" if name in decision_us else ""
        print(f"{name:12} {_mean(values):8.2f} ± {float(np.std(values)):.2f}{us}")
    rows = [f"{name},{number},{value:.6f}" for name, values in gains.items() for number, value in enumerate(values)]
    write_text(out / "streams.csv", "\n".join(["solver,stream,gain", *rows]) + "\n")
    print(f"By the model, {streams} streams of 100 tasks; times of a decision with its step, measured here.\n"
          f"{out / 'streams.csv'}")  # fmt: skip


def _write_events(folder: Path, returns: Sequence[float]) -> None:
    """TensorBoard: every episode's return."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard's own deprecations
        from torch.utils.tensorboard import SummaryWriter
    with SummaryWriter(str(folder)) as writer:
        for episode, value in enumerate(returns):
            writer.add_scalar("stream/return", value, episode)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
