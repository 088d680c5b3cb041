"""What a session is told: one frozen value, checked when it is made."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modeltree.errors import ConfigError, unknown
from runtime.bandwidth import ProbePolicy
from runtime.selection.branch_selection import MEASURED, Charge

MODES = ("only-device", "prefer-device", "prefer-cloud", "only-cloud")
"""Who answers, in the words of hybrid inference.

only-device : the server is never asked. prefer-device : only where the device alone would miss the deadline.
prefer-cloud : the tree as it was searched. only-cloud : the whole image to the cloud, and an error where that fails.
"""

TIMEOUT_S = 2.0
"""Longest wait for the cloud where no deadline is given."""


_PROBES = ProbePolicy()


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """How a session decides and connects; every name is a keyword of `Session.open`, too.

    Parameters
    ----------
    mode : one of `MODES`.
    policy : what chooses the forks: `switch` (the bandwidth's type), `measured` (the leaf of the highest reward at what
        was met of late), `exact` (likewise at what the tree predicts) or the file of a trained policy.
    timeout_s : longest wait for the cloud where no deadline is given.
    hedge : start the rest here while still waiting, when the deadline is near or the answer overdue.
    probes : when the idle link is probed; None never does, and needs no thread.
    battery_mj, inferences : energy that must last for so many inferences; only with a policy that knows of energy.
    target, variant : which of the bundle's libraries; the only target for devices unless named.
    threads : of a block; None takes as many as there are processors.
    least_s : block, or coding of a hand-over (`modeltree.met.coding_of`) -> seconds that it takes at least: plays a
        slower device.
    token : that the server asks for. ca : PEM file of who signed its certificate.
    certificate, key : PEM files of our own, for a server that wants to know its devices (mutual TLS).
    frames : False for another server of the protocol that hosts the ONNX forms: it is sent float32, never probed.

    Raises
    ------
    ConfigError : a value is off, or two do not go together.
    """

    mode: str = "prefer-cloud"
    policy: str | Path = MEASURED
    timeout_s: float = TIMEOUT_S
    hedge: bool = True
    probes: ProbePolicy | None = _PROBES
    battery_mj: float | None = None
    inferences: int | None = None
    target: str | None = None
    variant: str = "f32"
    threads: int | None = None
    least_s: Mapping[str, float] | None = None
    token: str | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    frames: bool = True

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("mode", self.mode, MODES)
        if not 0 < self.timeout_s < math.inf:
            raise ConfigError(f"timeout_s is {self.timeout_s}: it must be above 0 and finite; pass seconds")
        if (self.battery_mj is None) != (self.inferences is None) or (
            self.battery_mj is not None and self.mode == "only-cloud"
        ):
            raise ConfigError("a battery needs battery_mj and inferences, and any mode but only-cloud: pass both")

    @property
    def charge(self) -> Charge | None:
        """Of the battery that must last; None where none was named."""
        if self.battery_mj is None or self.inferences is None:
            return None
        return Charge(self.battery_mj, self.inferences, 1e3 * self.timeout_s)
