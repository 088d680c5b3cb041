"""Policies over a recorded link, one inference after the other, on a battery if there is one.

Computing takes the time that the table predicts; a transfer takes what the trace's changing rate says, integrated
exactly. A policy sees the bandwidth of the moment it decides at, without error; a real device sees less.
"""

from dataclasses import dataclass

import numpy as np

from modeltree.link.traces import Trace
from modeltree.offloading.decisions import Decisions, Objective
from modeltree.tree.emulate import checked_starts
from modeltree.units import s_from_ms
from runtime.selection.battery import Battery
from runtime.selection.policies import Policy


@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """One inference per start; all are (starts,).

    mbps : what the policy saw. reward : 0..1, see `play`. gave_up : whether the cloud did not answer in time.
    """

    starts_s: np.ndarray
    mbps: np.ndarray
    action: np.ndarray
    latency_ms: np.ndarray
    energy_mj: np.ndarray
    accuracy: np.ndarray
    reward: np.ndarray
    gave_up: np.ndarray


def play(
    decisions: Decisions, policy: Policy, trace: Trace, starts_s: np.ndarray, *, stay_ms: np.ndarray | None = None,
    timeout_ms: float, battery: Battery | None = None,
) -> Played:  # fmt: skip
    """Let a policy decide at every start, in their order, and see what that takes on the trace.

    A hand-over whose answer is not there after `timeout_ms` is given up: the device then runs the rest, and the radio
    was on until then (as on a device without hedging). Its accuracy counts as the action's.
    A `Reward` is paid for the latency that came out, as a share of its weights, and no less than 0; eq. 14, which
    weighs actions against each other at one bandwidth, for the bandwidth that was seen.

    Parameters
    ----------
    stay_ms : (actions,), the rest on the device (runtime.selection.battery.stay_ms); without it no answer is given up.
    battery : spends what every inference took, and says what the next may take.

    Raises
    ------
    ConfigError : the starts are no row of finite numbers. Exhausted : the battery cannot go on.
    """
    starts_s = checked_starts(starts_s)
    state, rows = decisions.start(trace.at(float(starts_s[0]))), []
    for start_s in starts_s.tolist():
        link_mbps = trace.at(start_s)
        action = policy.choose(state._replace(mbps=link_mbps), None if battery is None else battery.allowed())
        latency_ms, energy_mj, gave_up = _taken(decisions, action, trace, start_s, stay_ms, timeout_ms)
        if battery is not None:
            battery.spend(energy_mj)
        accuracy = float(decisions.table.accuracy[action])
        state = state._replace(latency_ms=latency_ms, energy_mj=energy_mj, accuracy=accuracy)
        reward = _paid(decisions, action, link_mbps, latency_ms, energy_mj)
        rows.append((start_s, link_mbps, action, latency_ms, energy_mj, accuracy, reward, gave_up))
    names = ("starts_s", "mbps", "action", "latency_ms", "energy_mj", "accuracy", "reward", "gave_up")
    return Played(**dict(zip(names, map(np.array, zip(*rows)))))


def _taken(
    decisions: Decisions, action: int, trace: Trace, start_s: float, stay_ms: np.ndarray | None, timeout_ms: float
) -> tuple[float, float, bool]:
    """(latency in ms, energy in mJ, whether the cloud was given up)."""
    table, energy = decisions.table, decisions.energy
    device_ms = float(table.device_ms[action])
    if not table.sends[action]:
        return device_ms, energy.mj(device_ms, 0.0), False
    sent_s = start_s + s_from_ms(device_ms)
    transfer_ms = trace.transfer_ms(float(table.sent_bytes[action]), sent_s)
    rtt_ms = max(0.0, decisions.rtt_ms + trace.rtt_at(sent_s) - trace.rtt_ms)
    waited_ms = rtt_ms + transfer_ms + float(table.cloud_ms[action])
    if stay_ms is None or waited_ms <= timeout_ms:
        return device_ms + waited_ms, energy.mj(device_ms, transfer_ms), False
    alone_ms = device_ms + float(stay_ms[action])
    return alone_ms + timeout_ms, energy.mj(alone_ms, min(transfer_ms, timeout_ms)), True


def _paid(decisions: Decisions, action: int, mbps: float, latency_ms: float, energy_mj: float) -> float:
    objective = decisions.objective
    if isinstance(objective, Objective):
        return float(decisions.rewards(mbps)[action])
    if energy_mj > decisions.budget_mj:
        return 0.0
    share = objective.of(float(decisions.table.accuracy[action]), latency_ms)
    return float(np.clip(share / (objective.accuracy_weight + objective.latency_weight), 0.0, 1.0))
