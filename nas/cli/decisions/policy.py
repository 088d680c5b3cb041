"""`nas policy`: agents that choose exit, cut and bits, trained and compared [Niu 2022]."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modeltree.units import ms_from_s
from nas.cli.display.progress import stages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modeltree.link.traces import Trace
    from modeltree.offloading.decisions import Decisions
    from modeltree.tree import ModelTree
    from nas.decisions.offloading.compare import PolicyOutcome, PolicyRow
    from nas.decisions.offloading.environment import Bandwidths
    from runtime.selection.policies import Trained

policy = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Choose exit, cut and bits at run time: train agents on a tree's leaves, compare them with the exact rule.",
)  # fmt: skip

Source = Annotated[
    Path | None,
    typer.Argument(metavar="TREE|RUN|BUNDLE", help="A tree's JSON; or a run: methods/actions.json, or its tree"),
]
Env = Annotated[str, typer.Option(help="leaves (of a tree), or stream (tasks with deadlines; needs no tree)")]
Costs = Annotated[
    Path | None, typer.Option(help="Of a stream: what exits and cuts take, as `nas stream --costs` writes")
]
StreamRate = Annotated[float, typer.Option(help="Of a stream: p, the chance of a task in a slot")]
StreamK = Annotated[float, typer.Option("--k", help="Of a stream: deadline in slots an image")]
StreamDevices = Annotated[int, typer.Option(min=1, help="Of a stream: end devices")]
SlotMs = Annotated[float, typer.Option(help="Of a stream: length of a slot")]
StreamMbps = Annotated[float, typer.Option(help="Of a stream: a steady link; --link gives another")]
OfMethod = Annotated[str | None, typer.Option(help="The tree of this method of the run")]
Link = Annotated[str | None, typer.Option(help="Bandwidths from a link: a scene, or a CSV or mahimahi file")]
SweepText = Annotated[str | None, typer.Option("--sweep", help="Bandwidths LOW:HIGH[:STEP] in Mbit/s")]
Rtt = Annotated[float | None, typer.Option(min=0.0, help="Round-trip time; the link's or the tree's unless said")]
Budget = Annotated[float | None, typer.Option(help="What an inference may take from the battery, in mJ [eq. 12]")]
Device = Annotated[str | None, typer.Option(help="Whose energy: a profile or its file; the tree's device unless said")]
Seed = Annotated[int, typer.Option(min=0, help="Of training, and of a scene")]


@policy.command()
def train(
    out: Annotated[Path, typer.Option(help="The policy's file, .npz")],
    source: Source = None,
    env: Env = "leaves",
    agent: Annotated[
        str | None, typer.Option(help="sac (soft actor-critic, discrete; the usual one), dqn, or ddqn (of a stream)")
    ] = None,
    costs: Costs = None,
    rate: StreamRate = 0.1,
    k: StreamK = 3.0,
    devices: StreamDevices = 3,
    slot_ms: SlotMs = 10.0,
    mbps: StreamMbps = 1.0,
    events: Annotated[Path | None, typer.Option(help="Of a stream: a folder for TensorBoard's curves")] = None,
    method: OfMethod = None,
    objective: Annotated[str, typer.Option(help="wang (eq. 7, as trees are searched for) or niu (eq. 14)")] = "wang",
    link: Link = None,
    sweep: SweepText = None,
    rtt_ms: Rtt = None,
    energy_budget_mj: Budget = None,
    device: Device = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Inferences to learn from; the agent's own unless said")] = (
        None
    ),
    seed: Seed = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress")] = False,
) -> None:
    """Train an agent on a tree's leaves, with bandwidths from a link, or drawn evenly from a sweep (0:80 if none).

    With --env stream: on drawn streams of tasks with deadlines.
    """
    if _is_stream(env):
        from nas.cli.decisions.stream_policy import StreamSetting, train_stream

        told_of = StreamSetting(
            costs=costs, p=rate, k=k, devices=devices, slot_ms=slot_ms, mbps=mbps,
            trace=_trace(link, None, seed, rtt_ms),
        )  # fmt: skip
        train_stream(told_of, out, agent=agent or "ddqn", steps=steps, seed=seed, events=events, quiet=quiet)
        return
    source, agent = _given(source), agent or "sac"
    import torch

    from modeltree.errors import ConfigError, unknown
    from modeltree.files import check_writable
    from nas.agents import AGENTS
    from nas.decisions.offloading.environment import DecisionEnv, Replayed, Uniform
    from nas.decisions.offloading.inputs import decisions_of, device_energy, parse_sweep, read_tree
    from runtime.selection.policies import Trained, write_policy

    if agent not in AGENTS:
        raise unknown("agent", agent, AGENTS)
    if out.suffix != ".npz":
        raise ConfigError(f"--out is {out}: a policy's file must end in .npz")
    check_writable(out)
    tree, file = read_tree(source, method)
    trace = _trace(link, sweep, seed, rtt_ms)
    energy, origin = device_energy(tree, device)
    decisions = decisions_of(
        tree, energy=energy, objective=objective, budget_mj=energy_budget_mj,
        rtt_ms=rtt_ms if trace is None else trace.rtt_ms,
    )  # fmt: skip
    bandwidths: Bandwidths
    if trace is not None:
        bandwidths, trained_on = Replayed(trace=trace), f"link {trace.name}"
    else:
        low, high, _ = parse_sweep(sweep or "0:80")
        bandwidths, trained_on = (
            Uniform(low_mbps=low, high_mbps=high),
            f"{low:g}..{high:g} Mbit/s, evenly, 2 % at the lowest",
        )
    torch.set_num_threads(1)  # networks this small are slower on two, and a seed gives the same policy on one alone
    told: dict[str, Any] = {"seed": seed} | ({} if steps is None else {"steps": steps})
    with stages(quiet=quiet) as progress:
        learnt = AGENTS[agent].train(
            DecisionEnv(decisions, bandwidths), AGENTS[agent].config(**told),
            lambda done, total, text: progress("agent", done, total, text),
        )  # fmt: skip
    trained = Trained(decisions=decisions, network=learnt.export())
    write_policy(out, trained, agent=agent, seed=seed, trained_on=trained_on)
    print(f"{file}: {len(decisions)} actions, round trip {decisions.rtt_ms:.4g} ms, energy: {origin}")
    print(f"{out}: {agent}, seed {seed}, {trained_on}, objective {objective}")


@policy.command("eval")
def evaluate(
    out: Annotated[Path, typer.Option(help="A folder for policies.html and policies.csv")],
    source: Source = None,
    env: Env = "leaves",
    costs: Costs = None,
    rate: StreamRate = 0.1,
    k: StreamK = 3.0,
    devices: StreamDevices = 3,
    slot_ms: SlotMs = 10.0,
    mbps: StreamMbps = 1.0,
    streams: Annotated[int, typer.Option(min=1, help="Of a stream: how many of 100 tasks")] = 10,
    policy: Annotated[list[Path] | None, typer.Option(help="A file of nas policy train; may be given again")] = None,
    method: OfMethod = None,
    objective: Annotated[
        str | None, typer.Option(help="wang or niu; the first policy's, or else wang, unless said")
    ] = None,
    link: Link = None,
    sweep: SweepText = None,
    rtt_ms: Rtt = None,
    energy_budget_mj: Budget = None,
    device: Device = None,
    battery_mj: Annotated[float | None, typer.Option(help="A battery for all inferences on the link together")] = None,
    inferences: Annotated[int, typer.Option(min=1, help="On a link, spread evenly over it")] = 200,
    timeout_ms: Annotated[
        float | None, typer.Option(help="On a link, when the cloud is given up; the runtime's own unless said")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Compare policies with the exact rule, greedy, on-device and cloud-only: on a link or a sweep (0:80:1 if none).

    Times and energy are predicted, accuracy is what the tree holds; on a link, transfers are exact.
    """
    if _is_stream(env):
        from nas.cli.decisions.stream_policy import StreamSetting, evaluate_stream

        told_of = StreamSetting(
            costs=costs, p=rate, k=k, devices=devices, slot_ms=slot_ms, mbps=mbps,
            trace=_trace(link, None, seed, rtt_ms),
        )  # fmt: skip
        evaluate_stream(told_of, policy or [], streams=streams, seed=seed, out=out)
        return
    source = _given(source)
    from modeltree.errors import ConfigError
    from modeltree.files import write_text
    from nas.decisions.offloading.compare import contenders, over_bandwidths, over_link, rows, write_csv
    from nas.decisions.offloading.inputs import decisions_of, device_energy, parse_sweep, read_tree
    from nas.report.policies import render_policies
    from runtime.options import TIMEOUT_S

    if battery_mj is not None and link is None:
        raise ConfigError("--battery-mj needs a link to be spent on: pass --link")
    tree, file = read_tree(source, method)
    files = _read(policy or [], tree)
    trace = _trace(link, sweep, seed, rtt_ms)
    energy, origin = device_energy(tree, device)
    decisions = decisions_of(
        tree, energy=energy, objective=_objective(objective, files), budget_mj=energy_budget_mj,
        rtt_ms=rtt_ms if trace is None else trace.rtt_ms,
    )  # fmt: skip
    policies = contenders(decisions, files)
    facts = [f"{len(decisions)} actions of {file}", f"round trip {decisions.rtt_ms:.4g} ms", f"energy: {origin}"]
    outcomes: dict[str, PolicyOutcome] = {}
    if trace is None:
        swept = parse_sweep(sweep or "0:80:1")
        facts.append(f"{swept.low:g} to {swept.high:g} Mbit/s")
        outcomes |= over_bandwidths(decisions, policies, swept.mbps())
        times_s = None
    else:
        facts.append(f"{inferences} inferences on {trace.name}, {trace.mean_mbps:.2f} Mbit/s on average")
        facts += [] if battery_mj is None else [f"battery {battery_mj:g} mJ"]
        played = over_link(
            decisions, policies, tree, trace, inferences=inferences, battery_mj=battery_mj,
            timeout_ms=ms_from_s(TIMEOUT_S) if timeout_ms is None else timeout_ms,
        )  # fmt: skip
        outcomes |= played
        times_s = played["exact"].starts_s
    compared = rows(decisions, policies, outcomes)
    write_csv(out / "policies.csv", decisions.table, outcomes)
    title = f"Policies: {tree.base} on {tree.device}"
    page = render_policies(
        title=title, facts=facts, table=decisions.table, rows=compared, outcomes=outcomes, times_s=times_s
    )
    write_text(out / "policies.html", page)
    print(f"{title}; {', '.join(facts)}")
    _print(compared)
    if trace is None:
        _print_choices(decisions, outcomes, ["exact", *files])
    print(f"Predicted times and energy, accuracy as the tree says; decisions timed here.\n{out / 'policies.html'}")


def _is_stream(env: str) -> bool:
    from modeltree.errors import unknown
    from nas.cli.decisions.stream_policy import ENVIRONMENTS, STREAM

    if env not in ENVIRONMENTS:
        raise unknown("environment", env, ENVIRONMENTS)
    return env == STREAM


def _given(source: Path | None) -> Path:
    """The tree that leaves are of."""
    if source is None:
        raise typer.BadParameter("a tree is needed: a tree's JSON, a run or a bundle, or --env stream")
    return source


def _read(paths: "Sequence[Path]", tree: "ModelTree") -> "dict[str, Trained]":
    from modeltree.errors import ConfigError
    from runtime.selection.policies import read_policy

    files = {path.stem: read_policy(path, tree) for path in paths}
    if len(files) < len(paths):
        raise ConfigError("two policies' files have the same name: rename one")
    return files


def _trace(link: str | None, sweep: str | None, seed: int, rtt_ms: float | None) -> "Trace | None":
    from modeltree.errors import ConfigError
    from modeltree.link.scenes import load_trace

    if link is not None and sweep is not None:
        raise ConfigError("both --link and --sweep are given: the bandwidths come from one of them")
    return None if link is None else load_trace(link, seed=seed, rtt_ms=rtt_ms)


def _objective(name: str | None, files: "Mapping[str, Trained]") -> str:
    """The objective by name: what was asked for, or what the policies were trained for."""
    from modeltree.errors import ConfigError
    from nas.decisions.offloading.inputs import OBJECTIVES

    names = {kind: name for name, kind in OBJECTIVES.items()}
    trained = {names.get(type(one.decisions.objective)) for one in files.values()}
    if name is not None or not trained:
        return name or "wang"
    file = trained.pop()
    if trained or file is None:
        raise ConfigError("the policies were trained for different objectives: say which one counts with --objective")
    return file


def _print(rows: "Sequence[PolicyRow]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    titles = ["policy", "reward", "of exact %", "mean ms", "p95 ms", "accuracy %", "mJ", "mJ in all"]
    titles += ["answered %", "gave up %", "decision us"]
    for title in titles:
        table.add_column(title, justify="left" if title == "policy" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name, f"{row.reward:.4f}", f"{100 * row.share:.2f}", f"{row.latency_ms:.2f}",
            f"{row.p95_latency_ms:.2f}", f"{row.accuracy:.2f}", f"{row.energy_mj:.1f}", f"{row.spent_mj:.0f}",
            f"{100 * row.answered:.1f}", f"{100 * row.gave_up:.1f}", f"{row.decision_us:.1f}",
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _print_choices(decisions: "Decisions", outcomes: "Mapping[str, PolicyOutcome]", names: "Sequence[str]") -> None:
    from nas.decisions.offloading.compare import ranges

    for name in names:
        print(f"{name}:")
        for low, high, what in ranges(decisions.table, outcomes[name]):
            print(f"  {low:7.4g} to {high:7.4g} Mbit/s  {what}")
