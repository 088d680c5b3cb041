"""What chooses the fork to go on with: the type of the bandwidth, or a policy that weighs the leaves [Niu 2022].

Both say for any node what they would do next, given what is known of the link, and remember nothing of the inference
under way; so the session may also ask them where the path would lead.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from modeltree.errors import ConfigError
from modeltree.offloading.decisions import Decisions, State, tree_decisions
from modeltree.profiles import PROFILES, load_profile
from modeltree.tree import Handover, ModelTree, Node
from runtime.selection.battery import Battery, stay_ms, worst_mj
from runtime.selection.link_state import UNKNOWN_LINK, LinkState
from runtime.selection.local_fallback import Staying
from runtime.selection.policies import Exact, Policy, Trained, read_policy
from runtime.selection.reweighing import AsPredicted, ByMeasured

__all__ = [
    "EXACT", "MEASURED", "SWITCH", "UNKNOWN_LINK", "ByMeasured", "ByPolicy", "BySwitch", "Charge", "Driver",
    "LinkState", "on_known_links", "open_driver", "planned_s",
]  # fmt: skip

SWITCH, EXACT, MEASURED = "switch", "exact", "measured"


class Driver(Protocol):
    """Chooses the way through a tree."""

    def child(self, here: int | None, seen: LinkState) -> Node:
        """The fork to take below a node; None: at the start."""
        ...

    def allows(self, leaf: int) -> bool:
        """Whether a path may end at a leaf that is reached when time runs out."""
        ...

    def goes_on_here(self, end: Node, seen: LinkState) -> bool:
        """Whether what an end hands over is not to be sent, though the cloud may be asked, but done here."""

    def answered(self, leaf: int, seen: LinkState, device_ms: float, radio_ms: float) -> None:
        """An inference is over: where its path ended, what was known at its last fork, and how long it kept us busy."""
        ...


class BySwitch:
    """The fork of the bandwidth type [Wang 2020, alg. 2]; where the cloud is not to be asked, one that stays here."""

    def __init__(self, tree: ModelTree) -> None:
        self._tree, self._staying = tree, Staying(tree)

    def child(self, here: int | None, seen: LinkState) -> Node:
        """Looks at the type alone."""
        return self._tree.child(here, seen.type) if seen.asks else self._staying.child(here, seen.type)

    def allows(self, leaf: int) -> bool:
        """Any."""
        return True

    def goes_on_here(self, end: Node, seen: LinkState) -> bool:
        """Never: the type decides."""
        return False

    def answered(self, leaf: int, seen: LinkState, device_ms: float, radio_ms: float) -> None:
        """Learns nothing of it."""


class ByPolicy:
    """Towards the leaf that a policy chooses among those that can still be reached; at every fork it chooses again.

    Where the cloud is not to be asked, it chooses among the leaves on the device; where there is none, the switch's way
    is taken, and the rest behind its hand-over runs here. While nothing is known of the link, its bandwidth is taken
    for that of the slowest type.

    decisions : the problem of this tree's leaves that the policy was made for.
    battery : only leaves that it can pay for are chosen, and it pays for every inference.
    """

    def __init__(
        self, tree: ModelTree, policy: Policy, decisions: Decisions, battery: Battery | None = None
    ) -> None:  # fmt: skip
        self._tree, self._policy, self._decisions, self.battery = tree, policy, decisions, battery
        self._staying = Staying(tree)
        self._paths = [tuple(node.id for node in tree.path(int(leaf))) for leaf in decisions.table.leaf]
        self._action = {path[-1]: action for action, path in enumerate(self._paths)}
        self._below: dict[int | None, np.ndarray] = {
            here: np.array([here is None or here in path[:-1] for path in self._paths])
            for here in (None, *(node.id for node in tree.nodes if node.children))
        }
        self._last: tuple[int, float] | None = None

    def child(self, here: int | None, seen: LinkState) -> Node:
        """The next node on the way to the leaf of the policy's action.

        Raises
        ------
        Exhausted : the battery cannot pay for another inference.
        """
        among = self._below[here] if self.battery is None else self._below[here] & self.battery.allowed()
        if not seen.asks:
            staying = among & ~self._decisions.table.sends
            if self.battery is None and not staying.any():
                return self._staying.child(here, seen.type)
            among = staying if staying.any() else among  # what a battery allows, it allows with the rest done here
        path = self._paths[self._policy.choose(self._state(self._mbps(seen)), among)]
        return self._tree.nodes[path[0 if here is None else path.index(here) + 1]]

    def allows(self, leaf: int) -> bool:
        """Whether the battery can pay for it; a head on the way is paid with any leaf behind it."""
        if self.battery is None:
            return True
        allowed = self.battery.allowed()
        if leaf in self._action:
            return bool(allowed[self._action[leaf]])
        return bool((allowed & self._below[self._tree.nodes[leaf].parent]).any())

    def goes_on_here(self, end: Node, seen: LinkState) -> bool:
        """Never: the policy has chosen to send."""
        return False

    def answered(self, leaf: int, seen: LinkState, device_ms: float, radio_ms: float) -> None:
        """The action taken is part of the next state [Niu 2022, eq. 5]; leaves by confidence are no actions."""
        if self.battery is not None:
            self.battery.spend(self._decisions.energy.mj(device_ms, radio_ms))
        if leaf in self._action:
            self._last = self._action[leaf], self._mbps(seen)

    def _mbps(self, seen: LinkState) -> float:
        return self._tree.types.representative_mbps[0] if math.isnan(seen.mbps) else seen.mbps

    def _state(self, mbps: float) -> State:
        return self._decisions.start(mbps) if self._last is None else self._decisions.after(*self._last, mbps)


def on_known_links(tree: ModelTree, policy: str | Path = SWITCH) -> Callable[[int | None, float], Node]:
    """A driver as an emulation asks it (`modeltree.tree.emulate.Choose`): the bandwidth known, the cloud always asked.

    Raises
    ------
    DataError, FormatError, ConfigError : as for `open_driver`.
    """
    driver = open_driver(tree, policy)

    def choose(here: int | None, mbps: float) -> Node:
        seen = LinkState(type=tree.types.match(mbps), mbps=mbps, asks=True)
        node = driver.child(here, seen)
        if node.leaf is not None:
            driver.answered(node.id, seen, 0.0, 0.0)
        return node

    return choose


class Charge(NamedTuple):
    """What a battery holds, for how many inferences, and after how long a transfer is given up at the latest."""

    budget_mj: float
    inferences: int
    timeout_ms: float


def open_driver(tree: ModelTree, policy: str | Path = SWITCH, charge: Charge | None = None) -> Driver:
    """What drives a session.

    policy : `switch`, `exact` (the leaf of the highest reward [Wang 2020, eq. 7] at the bandwidth), a policy's file, or
        `measured` (the same at what was met; until a session says what that is, at what the tree predicts).
    charge : of the battery that must last. A trained policy brings the energy model that it was trained with; `exact`
        takes that of the tree's device, where it is a shipped profile, and the default one elsewhere.

    Raises
    ------
    DataError, FormatError : the file cannot be read, or is no policy for this tree.
    ConfigError : there is no such policy; the switch, which knows of no energy, is to spare a battery; or the battery
        cannot last.
    """
    if policy in (SWITCH, MEASURED):
        if charge is not None:
            raise ConfigError(f"policy {policy} spares no battery: pass policy exact, or a trained one's file")
        return BySwitch(tree) if policy == SWITCH else ByMeasured(tree, AsPredicted(tree))
    chosen: Exact | Trained
    if policy == EXACT:
        energy = load_profile(tree.device).energy if tree.device in PROFILES else None
        chosen = Exact(decisions=tree_decisions(tree, energy=energy))
    elif not Path(policy).exists():
        raise ConfigError(
            f"policy is {str(policy)!r}: it must be {SWITCH}, {MEASURED}, {EXACT} or the file of a trained one"
        )
    else:
        chosen = read_policy(policy, tree)
    decisions, battery = chosen.decisions, None
    if charge is not None:
        worst = worst_mj(decisions, stay_ms(tree, decisions.table), timeout_ms=charge.timeout_ms)
        battery = Battery(budget_mj=charge.budget_mj, inferences=charge.inferences, worst_mj=worst)
    return ByPolicy(tree, chosen, decisions, battery)


def planned_s(
    tree: ModelTree, driver: Driver, here: int | None, seen: LinkState, within_s: Callable[[str], float],
    cloud_s: Callable[[Handover], float],
) -> float:  # fmt: skip
    """Seconds of what follows a node, heads included, if nothing changes; at the end the cloud or we, the faster.

    within_s : seconds of a block or rest. cloud_s : of a hand-over, until the answer is there.
    """
    total_s = 0.0
    while True:
        node = driver.child(here, seen)
        total_s += within_s(node.block) if node.block else 0.0
        if node.handover is not None:
            rest_s = within_s(node.handover.block)
            return total_s + (min(rest_s, cloud_s(node.handover)) if seen.asks else rest_s)
        if node.leaf is not None:
            return total_s
        if (head := tree.confident(node.id)) is not None:
            total_s += within_s(head.block)
        here = node.id
