"""Variants that may be made of a network's units: which apply, and which cannot pay on a device."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from torch import nn

from modeltree.errors import NotApplicable
from modeltree.layers import LayerSpec
from modeltree.profiles import DeviceProfile
from transforms import TECHNIQUES, Network, Unit, Variant, technique
from transforms.compose import is_foldable
from transforms.graph.describe import module_specs

HOPELESS_ALONE = 25.0
"""Points of accuracy that a closed form may lose alone and still be trained."""

_FIRST = 2
"""Of a unit's variants so many are made before it is looked whether others are needed."""


class Choice(NamedTuple):
    """A technique at a rate."""

    technique: str
    rate: float

    def __str__(self) -> str:
        return self.technique if self.rate == 1.0 else f"{self.technique}@{self.rate:g}"

    @property
    def ends_network(self) -> bool:
        """Whether the units behind are not needed."""
        known = TECHNIQUES.get(self.technique)
        return known is not None and known.ends_network


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a variant.

    error : of its output, relative to the variance of the base unit's, on held-back images.
    logit_error : of the whole network's output with this variant alone plugged in, relative likewise.
    drop : points of accuracy lost on the probe images with this variant alone plugged in; may be negative.
    layers : what it costs on its own.
    kept : channels that reach its restoring map, 0 if it has none (every technique but pruning).
    foldable : whether a pruned neighbour in front can fold into it.
    settled : whether it is as good as it gets: trained, or good enough without; else it is its closed form alone.
    """

    unit: int
    technique: str
    rate: float
    error: float
    logit_error: float
    drop: float
    seconds: float
    layers: tuple[LayerSpec, ...]
    kept: int
    foldable: bool
    settled: bool

    @property
    def choice(self) -> Choice:
        """Technique and rate."""
        return Choice(self.technique, self.rate)


def covered(unit: Unit, choice: Choice) -> tuple[int, ...]:
    """The units that a variant takes the place of, in order."""
    if choice.ends_network:
        return tuple(range(unit.index, unit.index + unit.fc_span))
    known = TECHNIQUES.get(choice.technique)
    body = None if known is None else known.reach(unit)
    return (unit.index,) if body is None else body.units


def candidates(
    network: Network, names: Iterable[str], lanes: int = 0
) -> tuple[list[tuple[int, Choice]], dict[tuple[int, Choice], str]]:
    """Every (unit, choice) that applies, and the reasons of those that do not.

    lanes : numbers in a vector of the target; where a technique leaves channels out, those kept fill whole vectors.
    """
    applies, declined = [], {}
    for unit in network.units:
        for name in names:
            known: dict[tuple[tuple[int, ...], ...], Choice] = {}  # what it is made of -> at which rate
            for rate in technique(name).rates_for(unit, lanes):
                choice = Choice(name, rate)
                try:
                    variant = technique(name).structure(unit, rate)
                    _restored_for_a_reader(network, unit, variant)
                except NotApplicable as reason:
                    declined[unit.index, choice] = str(reason)
                    continue
                made = known.setdefault(tuple(tuple(p.shape) for p in variant.parameters()), choice)
                if made == choice:
                    applies.append((unit.index, choice))
                else:
                    declined[unit.index, choice] = f"is the same network as {made}"
    return applies, declined


def _restored_for_a_reader(network: Network, unit: Unit, variant: Variant) -> None:
    """Refuse channels left out of a 1x1 convolution that have to be restored at once: that is a map of low rank whose
    one half is not free, as fast as `low_rank` and further off.

    Raises
    ------
    NotApplicable : no layer behind can read the kept channels.
    """
    if isinstance(variant.restore, nn.Identity) or unit.op.kernel_size != (1, 1):
        return
    follower = None if unit.following is None else network.units[unit.following]
    if follower is None or not is_foldable(Variant(follower, follower.op), follower):
        raise NotApplicable(f"no dense layer alone reads {unit.name}: its channels would be restored at once")


def slower(
    network: Network, wanted: Iterable[tuple[int, Choice]], device: DeviceProfile
) -> dict[tuple[int, Choice], str]:  # fmt: skip
    """Variants that take as long on a device as what they replace, with the reason; pruned ones, whose follower is
    faster, and those that stand for more than their unit aside."""
    base_ms = {item.unit: device.compute_ms(item.layers) for item in network.spec.items if item.unit is not None}
    alone_ms = _alone_ms(network, wanted, device)
    return {key: "saves no time on this device" for key, ms in alone_ms.items() if ms >= base_ms[key[0]]}


def quickest(
    network: Network, wanted: Sequence[tuple[int, Choice]], device: DeviceProfile
) -> list[tuple[int, Choice]]:  # fmt: skip
    """Variants to make first, in the order of `wanted`: the `_FIRST` fastest of every unit, and all that say more than
    their own time, by making the follower faster or standing for more than their unit."""
    ms = _alone_ms(network, wanted, device)
    fast = {
        key
        for unit in {index for index, _ in ms}
        for key in sorted((key for key in ms if key[0] == unit), key=lambda key: ms[key])[:_FIRST]
    }
    return [key for key in wanted if key in fast or key not in ms]


def needless(
    network: Network, later: Sequence[tuple[int, Choice]], records: Mapping[tuple[int, Choice], Record],
    device: DeviceProfile, enough: float,
) -> dict[tuple[int, Choice], str]:  # fmt: skip
    """Variants that need not be made, for another one of the unit is as fast on the device and does no harm.

    records : of those made first. enough : see `DistilConfig`.
    """
    ms = _alone_ms(network, [*later, *records], device)
    spared = {}
    for key in (key for key in later if key in ms):
        rivals = (one for one in ms if one[0] == key[0] and one in records and _harmless(records[one], enough))
        if (rival := next((one for one in rivals if ms[one] <= ms[key]), None)) is not None:
            spared[key] = f"{rival[1]} is as fast and does no harm"
    return spared


def _harmless(record: Record, enough: float) -> bool:
    return record.logit_error <= enough and not record.kept


def _alone_ms(
    network: Network, wanted: Iterable[tuple[int, Choice]], device: DeviceProfile
) -> dict[tuple[int, Choice], float]:  # fmt: skip
    """What variants take that stand for their unit alone and change nothing behind it."""
    found = {}
    for index, choice in wanted:
        unit = network.units[index]
        variant = technique(choice.technique).structure(unit, choice.rate)
        if len(covered(unit, choice)) == 1 and isinstance(variant.restore, nn.Identity):
            found[index, choice] = device.compute_ms(module_specs(variant, unit.in_shape))
    return found


def hopeless(records: Mapping[tuple[int, Choice], Record]) -> dict[tuple[int, Choice], str]:
    """Variants whose closed form loses so much that no steps of gradient would make them worth offering."""
    return {
        key: f"its closed form alone loses {record.drop:.1f} points"
        for key, record in records.items()
        if not record.settled and record.drop > HOPELESS_ALONE and TECHNIQUES[record.technique].solved
    }


def outdone(
    records: Mapping[tuple[int, Choice], Record], device: DeviceProfile, enough: float
) -> dict[tuple[int, Choice], str]:  # fmt: skip
    """Variants that need training while another one of the unit is as fast on the device and does no harm.

    records : of variants that stand for their unit alone. enough : see `DistilConfig`.
    """
    ms = {key: device.compute_ms(record.layers) for key, record in records.items()}
    good = [key for key, record in records.items() if _harmless(record, enough)]
    beaten = {}
    for key in (key for key, record in records.items() if not record.settled and not record.kept):
        rival = next((one for one in good if one[0] == key[0] and ms[one] <= ms[key]), None)
        if rival is not None:
            beaten[key] = f"{rival[1]} is as fast and does no harm"
    return beaten
