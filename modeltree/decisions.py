"""Exit, cut and bits together: what every action costs, what it is worth, and the best one [Niu 2022].

A `DecisionTable` holds what was measured once; `Decisions` adds the link's round trip, the energy model and the
objective, and answers for a bandwidth: latency, energy, reward, the exact best action. All that does not depend on the
bandwidth is computed once, so that the paper's 189 actions (3 exits, 21 cuts, 3 widths) take microseconds.

The paper's bandwidths are MB/s, ours Mbit/s: 10 MB/s are 80.
"""

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np

from modeltree.errors import ConfigError, DataError
from modeltree.units import bytes_per_ms, mbps, ms_from_s

PAPER_MBPS = mbps(10e6, ms_from_s(1.0))
"""10 MB/s, the end of the paper's sweep of bandwidths."""

_OBSERVED_SHARE = 1 / 8
_WIDTHS = (*range(1, 17), 32)
_TIE = 1e-9
"""What latency counts at least in an exact decision: from `full_mbps` on b is 0, and slow is as good as fast."""


class State(NamedTuple):
    """s = (T, e, acc, B) [Niu 2022, eq. 5]: what the last action took and gave, and the bandwidth now."""

    latency_ms: float
    energy_mj: float
    accuracy: float
    mbps: float


@dataclass(frozen=True, kw_only=True, eq=False)
class DecisionTable:
    """What every action a = (exit, cut, bits) [Niu 2022, eq. 6] costs and gives; measured, and independent of the link.

    Arrays are (actions,), become read-only copies, and are checked. Actions differ in (exit, cut, bits); some may do
    the same (bits mean nothing where nothing is sent), as in the paper's 3 x 21 x 3.

    exit : from 1, the earliest. cut : layers that stay on the device, from 0. bits : of a code, 1..16; 32 is float32.
    device_ms, cloud_ms : computing, coding included.
    sent_bytes : on the wire, after entropy coding; 0 where the device does everything.
    accuracy : percent, measured through the exit and the coder.
    device_macs : multiply-accumulates on the device.

    Raises
    ------
    DataError : shapes differ, no action, an action twice, or a number that cannot be; names the action.
    """

    exit: np.ndarray
    cut: np.ndarray
    bits: np.ndarray
    device_ms: np.ndarray
    cloud_ms: np.ndarray
    sent_bytes: np.ndarray
    accuracy: np.ndarray
    device_macs: np.ndarray

    def __post_init__(self) -> None:
        for field in fields(self):
            given = np.asarray(getattr(self, field.name))
            whole = field.name in ("exit", "cut", "bits")
            if given.dtype.kind not in ("iu" if whole else "iuf"):
                kind = "whole numbers" if whole else "numbers"
                raise DataError(f"{field.name} of a decision table is {given.dtype}: it must be {kind}")
            values = np.array(given, dtype=np.int64 if whole else np.float64)
            values.setflags(write=False)
            object.__setattr__(self, field.name, values)
        self._check()

    def __len__(self) -> int:
        return len(self.exit)

    def name(self, action: int) -> str:
        """An action in words."""
        return f"exit {self.exit[action]}, cut {self.cut[action]}, {self.bits[action]} bits"

    def index(self, exit: int, cut: int, bits: int) -> int:
        """The number of an action."""
        found = np.flatnonzero((self.exit == exit) & (self.cut == cut) & (self.bits == bits))
        if not found.size:
            raise ConfigError(f"exit {exit}, cut {cut}, {bits} bits is no action of the table: it has {len(self)}")
        return int(found[0])

    @cached_property
    def sends(self) -> np.ndarray:
        """(actions,), bool: whether anything is handed over."""
        return self.sent_bytes > 0

    def latency_ms(self, mbps: float, rtt_ms: float) -> np.ndarray:
        """(actions,): device, round trip, transfer and cloud; infinite for what must be sent while the link is out."""
        _check_mbps(mbps)
        if not (math.isfinite(rtt_ms) and rtt_ms >= 0):
            raise ConfigError(f"rtt_ms is {rtt_ms}: it must be finite and at least 0")
        return self.device_ms + self.cloud_ms + np.where(self.sends, rtt_ms, 0.0) + self.transfer_ms(mbps)

    def transfer_ms(self, mbps: float) -> np.ndarray:
        """(actions,): time on the wire."""
        if mbps == 0:
            return np.where(self.sends, math.inf, 0.0)
        return np.asarray(self.sent_bytes / bytes_per_ms(mbps))

    def energy_mj(self, mbps: float, energy: "Energy") -> np.ndarray:
        """(actions,): e = E_compute + E_transmission [Niu 2022, eq. 3]; infinite for what is sent while it is out."""
        _check_mbps(mbps)
        return energy.compute_mj(self.device_macs) + energy.transmission_mj(self.transfer_ms(mbps))

    def _check(self) -> None:
        shapes = {field.name: getattr(self, field.name).shape for field in fields(self)}
        if len(set(shapes.values())) > 1 or len(self.exit.shape) != 1 or not self.exit.size:
            raise DataError(f"a decision table has {shapes}: give every column one number an action, at least one")
        for name in ("device_ms", "cloud_ms", "sent_bytes", "accuracy", "device_macs", "cut"):
            values = getattr(self, name)
            self._refuse(~(np.isfinite(values) & (values >= 0)), name, "finite and at least 0")
        self._refuse(self.accuracy > 100, "accuracy", "a percentage, 0..100")
        self._refuse(self.exit < 1, "exit", "counted from 1")
        self._refuse(~np.isin(self.bits, _WIDTHS), "bits", "1..16, or 32 for float32")
        self._refuse((self.sent_bytes == 0) & (self.cloud_ms > 0), "cloud_ms", "0 where nothing is sent")
        self._refuse(self.device_ms + self.cloud_ms <= 0, "device_ms", "above 0 where the cloud does nothing")
        triples = np.stack([self.exit, self.cut, self.bits], axis=1)
        _, first, place = np.unique(triples, axis=0, return_index=True, return_inverse=True)
        again = np.flatnonzero(first[place.reshape(-1)] != np.arange(len(self)))
        if again.size:
            raise DataError(f"{self.name(int(again[0]))} is in the table twice: keep one row an action")

    def _refuse(self, bad: np.ndarray, name: str, must: str) -> None:
        if bad.any():
            i = int(np.argmax(bad))
            raise DataError(f"action {i} ({self.name(i)}) has {name} {getattr(self, name)[i]}: it must be {must}")


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What an inference takes from the device's battery [Niu 2022, eqs. 1-3].

    E_compute = sum k0 f^2 O X_p: O X_p, "computational intensity" times "data size to be processed", is read as CPU
    cycles, MACs times `cycles_per_mac`; k0 f^2 is then joule a cycle.
    E_transmission = P X_t / (B log2(1 + P gamma)): a rate where B is in Hz, but the paper's B is measured in MB/s
    everywhere else, and X_t / B is then the time on the wire already. The default gamma makes the logarithm 1, so that
    the energy is the radio's power times the measured time; another gamma is eq. 2 to the letter.

    Of the defaults only f is from the paper (sec. IV-A2, a Raspberry Pi 4 at its highest clock). The others were chosen
    by us and measured nowhere: k0 so that computing draws 3.4 W at that clock, about a Pi 4 under load above idle; 1
    cycle a MAC, the order of float32 in a general-purpose framework on one core; P as the order of a WiFi radio that
    sends. Replace them for a device of your own before you believe a millijoule.

    k0_w_per_hz3 : k0, W / Hz^3. frequency_hz : f. power_w : P. gamma_per_w : gamma, signal to noise ratio per watt.
    """

    k0_w_per_hz3: float = 1e-27
    frequency_hz: float = 1.5e9
    cycles_per_mac: float = 1.0
    power_w: float = 1.0
    gamma_per_w: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{field.name} is {value}: it must be finite and above 0")

    def compute_mj(self, macs: np.ndarray) -> np.ndarray:
        """[Niu 2022, eq. 1]: k0 f^2 times the cycles, as power k0 f^3 times the time they take."""
        busy_ms = ms_from_s(1.0) * self.cycles_per_mac / self.frequency_hz * macs
        return np.asarray(self.k0_w_per_hz3 * self.frequency_hz**3 * busy_ms)

    def transmission_mj(self, transfer_ms: np.ndarray) -> np.ndarray:
        """[Niu 2022, eq. 2], from the time X_t / B on the wire."""
        return self.power_w / math.log2(1 + self.power_w * self.gamma_per_w) * transfer_ms


@dataclass(frozen=True, kw_only=True)
class Objective:
    """r = a acc + b / T, or 0 above the energy budget; a = n ln(1 + B / s), b = 1 - a [Niu 2022, eqs. 12-14].

    The paper gives neither n nor s. n is "the coefficient that limits a between 0 and 1": here a reaches 1 at
    `full_mbps` and stays there. s was chosen by us as large as that, so that a rises almost in a straight line, which
    the paper's answers (a later exit from 7 MB/s on only) ask for; a smaller s goes for accuracy earlier.

    sensitivity_mbps : s. full_mbps : where a is 1. budget_mj : the energy an inference may take at most; inf is none.
    """

    sensitivity_mbps: float = PAPER_MBPS
    full_mbps: float = PAPER_MBPS
    budget_mj: float = math.inf

    def __post_init__(self) -> None:
        for name in ("sensitivity_mbps", "full_mbps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}: it must be finite and above 0")
        if not self.budget_mj > 0:
            raise ConfigError(f"budget_mj is {self.budget_mj}: it must be above 0, inf for no budget")

    def weight(self, mbps: float) -> float:
        """a: how much accuracy counts, 0..1 [Niu 2022, eq. 13]."""
        n = 1 / math.log1p(self.full_mbps / self.sensitivity_mbps)
        return min(1.0, n * math.log1p(mbps / self.sensitivity_mbps))


@dataclass(frozen=True, kw_only=True, eq=False)
class Decisions:
    """The decision problem: a table, its link's round trip, the energy model and the objective. Immutable.

    How the reward's open points were read. "We first standardise accuracy and latency to the same magnitude" (before
    eq. 13): the terms acc and 1 / T are each brought to 0..1 over the actions at this bandwidth, by their least and
    greatest value. Not by mean and deviation: rewards would be negative, and then breaking the energy budget, worth 0,
    would beat keeping it. Not T before it is inverted: its standardised value crosses 0, where 1 / T has a pole. A term
    that is the same for all actions counts 0. 1 / T of what must be sent while the link is out is 0.
    """

    table: DecisionTable
    rtt_ms: float
    energy: Energy = Energy()
    objective: Objective = Objective()

    def __post_init__(self) -> None:
        self.table.latency_ms(1.0, self.rtt_ms)  # a bad round trip is refused here, not at the first decision

    def __len__(self) -> int:
        return len(self.table)

    def latency_ms(self, mbps: float) -> np.ndarray:
        """(actions,): T."""
        _check_mbps(mbps)
        return np.asarray(self._fixed_ms + (self._wire / mbps if mbps > 0 else self._out))

    def energy_mj(self, mbps: float) -> np.ndarray:
        """(actions,): e."""
        _check_mbps(mbps)
        return np.asarray(self._compute_mj + self._wire_w * (self._wire / mbps if mbps > 0 else self._out))

    def fits(self, mbps: float) -> np.ndarray:
        """(actions,), bool: whether the energy stays within the budget; none may."""
        return np.asarray(self.energy_mj(mbps) <= self.objective.budget_mj)

    def rewards(self, mbps: float) -> np.ndarray:
        """(actions,): r, each 0..1 [Niu 2022, eq. 14]."""
        values = self._worth(mbps)
        if self._limited:
            values[~self.fits(mbps)] = 0.0
        return values

    def best(self, mbps: float) -> int:
        """The exact answer: the action of the highest reward within the budget, of equals the fastest.

        Where the budget leaves none, the one that takes the least energy.
        """
        return self.highest(self._worth(mbps, least_b=_TIE), mbps)

    def highest(self, scores: np.ndarray, mbps: float) -> int:
        """The action of the highest score within the budget; without one, that of the least energy."""
        if not self._limited:
            return int(scores.argmax())
        energy_mj = self.energy_mj(mbps)
        fits = energy_mj <= self.objective.budget_mj
        return int(np.where(fits, scores, -math.inf).argmax() if fits.any() else energy_mj.argmin())

    def after(self, action: int, taken_mbps: float, mbps: float) -> State:
        """The state after an action was taken at one bandwidth and another has been seen."""
        return State(
            float(self.latency_ms(taken_mbps)[action]),
            float(self.energy_mj(taken_mbps)[action]),
            float(self.table.accuracy[action]),
            mbps,
        )

    def start(self, mbps: float) -> State:
        """The state before anything has run: as if the fastest local action had, or else the first of all."""
        table = self.table
        action = int(np.where(table.sends, math.inf, table.device_ms).argmin()) if not table.sends.all() else 0
        return self.after(action, mbps, mbps)

    def observe(self, state: State) -> np.ndarray:
        """(4,), float32 within -1..1: the state as a network sees it.

        Each value x becomes 2 x / (x + x0) - 1, which keeps order, needs no limit and takes infinity (an outage) to 1.
        x0 is the median over the actions at full bandwidth, for the bandwidth an eighth of that (where little changes
        much). Accuracies differ little: theirs run evenly from the lowest to the highest.
        """
        values = np.array([state.latency_ms, state.energy_mj, 1.0, state.mbps])
        seen = 1.0 - 2.0 * self._middles / (self._middles + values)
        low, span = self._accuracies
        seen[2] = 2.0 * (state.accuracy - low) / span - 1.0
        return np.clip(seen, -1.0, 1.0).astype(np.float32)

    def _worth(self, mbps: float, least_b: float = 0.0) -> np.ndarray:
        """The reward without the budget, b being so much at least; a fresh array."""
        speed = 1.0 / self.latency_ms(mbps)
        low = speed.min()
        span = speed.max() - low
        a = self.objective.weight(mbps)
        values = a * self._accuracy
        if span > 0:
            values += (speed - low) * (max(1.0 - a, least_b) / span)
        return np.asarray(values)

    @cached_property
    def _limited(self) -> bool:
        return self.objective.budget_mj < math.inf

    @cached_property
    def _fixed_ms(self) -> np.ndarray:
        return self.table.device_ms + self.table.cloud_ms + np.where(self.table.sends, self.rtt_ms, 0.0)

    @cached_property
    def _wire(self) -> np.ndarray:
        """(actions,): time on the wire at 1 Mbit/s."""
        return self.table.transfer_ms(1.0)

    @cached_property
    def _out(self) -> np.ndarray:
        return self.table.transfer_ms(0.0)

    @cached_property
    def _compute_mj(self) -> np.ndarray:
        return self.energy.compute_mj(self.table.device_macs)

    @cached_property
    def _wire_w(self) -> float:
        return float(self.energy.transmission_mj(np.array(1.0)))

    @cached_property
    def _accuracies(self) -> tuple[float, float]:
        low, high = float(self.table.accuracy.min()), float(self.table.accuracy.max())
        return low, high - low or 1.0

    @cached_property
    def _accuracy(self) -> np.ndarray:
        low, span = self._accuracies
        return (self.table.accuracy - low) / span

    @cached_property
    def _middles(self) -> np.ndarray:
        full = self.objective.full_mbps
        energy_mj = max(float(np.median(self.energy_mj(full))), np.finfo(np.float64).tiny)
        return np.array([float(np.median(self.latency_ms(full))), energy_mj, 1.0, full * _OBSERVED_SHARE])


def _check_mbps(mbps: float) -> None:
    if not 0 <= mbps < math.inf:
        raise ConfigError(f"the bandwidth is {mbps} Mbit/s: it must be finite and at least 0")
