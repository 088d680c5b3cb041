"""The world of [Li 2023]: edge servers, a device, the links between them, and the tasks of a slot.

What the paper gives: N from 2 to 9 servers within 750 m, device-server rates of 0.8 to 2 MB/s, tolerances of 1 to 7 s a
block, 30 to 110 tasks released a slot, kappa = 1e-26, T = 600 slots. It gives neither the processors' speeds, the
channel's constants, the number of devices, beta nor the battery; `World` has all of them as parameters, with values at
which delays come out near the paper's (about 30 s a slot for VGG16 in 6 blocks on 4 servers).

How load couples tasks is left open too, although the release rate and "load" enter its figures and its greedy
baseline. All tasks of a slot follow the slot's placement, and whoever serves several gives each an equal share:

    "work"    (the default, the plainest reading we know that brings both in) a task is always at one block of its
              chain, so the tasks of a slot are spread over the hosts as their work is: a block on host n takes
              tasks_n * (share of the chain's work that is on n) times its time alone
    "blocks"  every block of the chain counts as a task of its own: tasks_n * (blocks on n) times its time alone
    "none"    eqs. 3, 5 and 6 as they are written: every task alone in the world

tasks_n is `release` on a server, `release / devices` on a device; what crosses a device's radio takes as many times its
time alone. With "work", cutting a network finer never costs anything by itself, as in the paper's fig. 9.
"""

import math
from dataclasses import dataclass

import numpy as np

from modeltree.errors import ConfigError
from nas.decisions.placement.blocks import Blocks, load_blocks

COUPLINGS = ("work", "blocks", "none")
RADIUS_M = 750.0
RATES_BYTES_PER_S = (0.8e6, 2e6)


@dataclass(frozen=True, kw_only=True)
class World:
    """Parameters. Symbols are the paper's where it has one.

    network, blocks : which chain, in how many parts (M). servers : N.
    release : tasks a slot. devices : that release them, evenly.
    tolerance_s : tau_m is drawn evenly between the two for every block and slot. beta : weight of the penalty.
    cycles_per_operation : from operations to c_m. spread : c_m varies by this share from slot to slot.
    device_hz : f. server_hz : F_n is drawn evenly between the two, once, from `seed`.
    bandwidth_hz, power_w, noise_w_per_hz, gain, exponent : B, p, N0 and |h|^2 = gain * distance^-exponent * fading.
    capacity : factor on the device-server rates. between_bytes_per_s : R_max. battery_j : E_max of a device.
    slots : T. coupling : see above.
    """

    network: str = "vgg16"
    blocks: int = 6
    servers: int = 4
    release: float = 60.0
    devices: int = 10
    tolerance_s: tuple[float, float] = (1.0, 7.0)
    beta: float = 1.0
    cycles_per_operation: float = 8.0
    spread: float = 0.1
    device_hz: float = 0.2e9
    server_hz: tuple[float, float] = (0.8e9, 2e9)
    bandwidth_hz: float = 2e6
    power_w: float = 0.1
    noise_w_per_hz: float = 4e-21
    gain: float = 2.8e-5
    exponent: float = 3.0
    capacity: float = 1.0
    between_bytes_per_s: float = 100e6
    battery_j: float = 3e3
    slots: int = 600
    coupling: str = "work"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.coupling not in COUPLINGS:
            raise ConfigError(f"coupling is {self.coupling!r}: it must be one of {', '.join(COUPLINGS)}")
        counts = {"servers": self.servers, "devices": self.devices, "slots": self.slots, "blocks": self.blocks}
        for name, value in counts.items():
            if value < 1:
                raise ConfigError(f"{name} is {value}: it must be at least 1")
        for name in ("release", "device_hz", "bandwidth_hz", "power_w", "noise_w_per_hz", "gain", "capacity",
                     "between_bytes_per_s", "battery_j", "cycles_per_operation"):  # fmt: skip
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}: it must be finite and above 0")
        for name in ("tolerance_s", "server_hz"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise ConfigError(f"{name} is {(low, high)}: two finite numbers above 0, the lower one first")
        if not (0 <= self.spread < 1 and self.beta >= 0):
            raise ConfigError(f"spread is {self.spread}, beta {self.beta}: spread must lie in 0..1, beta from 0 up")

    @property
    def hosts(self) -> int:
        """The device, number 0, and the servers."""
        return self.servers + 1

    def chain(self) -> Blocks:
        """The blocks."""
        return load_blocks(self.network, self.blocks)

    def host_hz(self) -> np.ndarray:
        """(hosts,): f and F_n."""
        rng = np.random.default_rng([self.seed, 1])
        return np.concatenate([[self.device_hz], rng.uniform(*self.server_hz, self.servers)])

    def tasks(self) -> np.ndarray:
        """(hosts,): tasks of a slot that share each host, 1 without coupling."""
        if self.coupling == "none":
            return np.ones(self.hosts)
        return np.array([self.release / self.devices, *[self.release] * self.servers])

    def distances_m(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, servers): of the device to every server; servers and device lie anywhere within the radius."""
        angle, radius = rng.uniform(0, 2 * math.pi, (2, count, self.servers)), rng.random((2, count, self.servers))
        place = RADIUS_M / 2 * np.sqrt(radius) * np.exp(1j * angle)
        return np.maximum(np.abs(place[0] - place[1][:, :1]), 1.0)

    def rates(self, distances_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Device-server rates in bytes a second, of `distances_m`'s shape, with fading, within the paper's limits."""
        channel = self.gain * distances_m**-self.exponent * rng.exponential(1.0, distances_m.shape)
        snr = self.power_w * channel / (self.noise_w_per_hz * self.bandwidth_hz)
        return np.clip(self.bandwidth_hz * np.log2(1 + snr) / 8, *RATES_BYTES_PER_S) * self.capacity


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots:
    """What is known at the beginning of B slots.

    cycles, tolerance_s : (B, M), c_m and tau_m. rate : (B, N), bytes a second between the device and each server.
    """

    cycles: np.ndarray
    tolerance_s: np.ndarray
    rate: np.ndarray

    def __len__(self) -> int:
        return len(self.cycles)

    def split(self, parts: int) -> list["Slots"]:
        """As many parts of the same length."""
        pieces = (np.split(one, parts) for one in (self.cycles, self.tolerance_s, self.rate))
        return [Slots(cycles=c, tolerance_s=t, rate=r) for c, t, r in zip(*pieces, strict=True)]


def draw_slots(world: World, chain: Blocks, distances_m: np.ndarray, rng: np.random.Generator) -> Slots:
    """One slot for every row of `distances_m`, (B, N); `chain` is the world's."""
    count = len(distances_m)
    varied = 1 + world.spread * rng.uniform(-1, 1, (count, 1))
    return Slots(
        cycles=world.cycles_per_operation * chain.operations * varied,
        tolerance_s=rng.uniform(*world.tolerance_s, (count, world.blocks)),
        rate=world.rates(distances_m, rng),
    )
