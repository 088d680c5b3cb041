"""What every compression would save on a device, whether it is offered or not: the table that a user looks for."""

from collections.abc import Mapping
from typing import NamedTuple

from modeltree.profiles import DeviceProfile
from nas.compression.library import Choice, Library, covered
from nas.treesearch.options.prices import UnitPrices
from transforms import Network


class Saving(NamedTuple):
    """A compression of a layer, or of a block that begins with it, alone in the network.

    base_ms : what it takes the place of, by the device's profile. saves_ms : of that. drop : points of accuracy lost on
    the probe images. measured_ms : of what it takes the place of and of the compression, compiled and timed here; None
    where they were not. covers : how many layers it takes the place of. why_not : why it is not offered; empty if it
    is.
    """

    layer: str
    choice: str
    covers: int
    base_ms: float
    saves_ms: float
    drop: float
    why_not: str
    measured_ms: tuple[float, float] | None = None


def savings(
    network: Network, library: Library, device: DeviceProfile, dropped: Mapping[tuple[int, Choice], str]
) -> list[Saving]:
    """Every variant of a library, in the order of the network; what it saves by itself, nothing folded into it.

    dropped : (unit, choice) -> why a search is not offered it.
    """
    prices = UnitPrices(network, library, device)
    rows = []
    for (index, choice), record in sorted(library.records.items()):
        unit = network.units[index]
        base_ms = prices.replaced_ms(record)
        rows.append(
            Saving(
                layer=unit.name, choice=str(choice), covers=len(covered(unit, choice)), base_ms=base_ms,
                saves_ms=base_ms - device.compute_ms(record.layers), drop=record.drop,
                why_not=dropped.get((index, choice), ""), measured_ms=library.timed.get((index, choice)),
            )
        )  # fmt: skip
    return rows
