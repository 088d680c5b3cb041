"""What a unit's options take on the device, given what the unit in front of it was replaced by."""

import math
from collections.abc import Sequence

import numpy as np

from modeltree.layers import LayerSpec
from modeltree.profiles import DeviceProfile
from nas.compression.library import Choice, Library, Record, covered
from nas.treesearch.problem import ABSORBED
from transforms import Network, Variant, technique
from transforms.compose import entry, folded_layers


def absorbed(count: int) -> Choice:
    """The choice of a unit that one in front has made superfluous, and `count - 1` behind it."""
    return Choice(ABSORBED, float(count))


class UnitPrices:
    """Milliseconds of a unit's options on a device, in a number format."""

    def __init__(
        self, network: Network, library: Library, device: DeviceProfile, number_format: str = "f32"
    ) -> None:  # fmt: skip
        self._network, self._library, self._device, self._format = network, library, device, number_format
        self.base_layers = {item.unit: list(item.layers) for item in network.spec.items if item.unit is not None}

    def _compute_ms(self, layers: Sequence[LayerSpec]) -> float:
        return self._device.compute_ms(layers, self._format)

    def left(self, unit: int, choice: Choice | None) -> int:
        """How many units behind this one are superfluous, because its variant takes their place too."""
        if choice is None:
            return 0
        if choice.technique == ABSORBED:
            return int(choice.rate) - 1
        return len(covered(self._network.units[unit], choice)) - 1

    def saved_ms(self, record: Record) -> float:
        """What a variant saves against all that it takes the place of, nothing folded into it."""
        return self.replaced_ms(record) - self._compute_ms(record.layers)

    def replaced_ms(self, record: Record) -> float:
        """What a variant takes the place of: its units, and what lies between them."""
        inside = sum(self._compute_ms(self.base_layers[u]) for u in self._units(record))
        return inside + self._glue_ms(record)

    def _units(self, record: Record) -> tuple[int, ...]:
        return covered(self._network.units[record.unit], record.choice)

    def _glue_ms(self, record: Record) -> float:
        """What lies between the units that a variant takes the place of, which places reckon as being there."""
        body = technique(record.technique).reach(self._network.units[record.unit])
        names = () if body is None else body.nodes
        glue = [item for item in self._network.spec.items if item.unit is None and item.name in names]
        return sum(self._compute_ms(item.layers) for item in glue)

    def pairs_ms(
        self, unit: int, options: Sequence[Record | None], front: int | None, fronts: Sequence[Choice | None]
    ) -> np.ndarray:
        """(fronts, options) device time; infinite where the two exclude each other.

        Parameters
        ----------
        options : variants of the unit; None keeps the layer.
        front : the unit in front in the same block, None where there is none. fronts : its choices.
        """
        return np.array([[self._ms(unit, option, front, choice) for option in options] for choice in fronts])

    def last_ms(self, unit: int, choices: Sequence[Choice | None]) -> np.ndarray:
        """(choices,) added when the device half ends behind the unit: infinite where a variant is not complete there.

        A variant in the place of several units is complete behind the last of them only.
        """
        return np.array([math.inf if self.left(unit, choice) else 0.0 for choice in choices])

    def absorbed_ms(self, front: int, fronts: Sequence[Choice | None], count: int) -> np.ndarray:
        """(fronts,) of the unit behind `front` as the first of `count` that are superfluous: free, and only then."""
        return np.array([0.0 if self.left(front, choice) == count else math.inf for choice in fronts])

    def _ms(self, unit: int, option: Record | None, front: int | None, choice: Choice | None) -> float:
        if front is not None and self.left(front, choice):
            return math.inf
        layers = self.base_layers[unit] if option is None else list(option.layers)
        glue_ms = 0.0 if option is None else self._glue_ms(option)
        if front is not None and choice is not None and self._folds(unit, option, front):
            record = self._library.records.get((front, choice))
            if record is not None and record.kept:
                restoring = record.layers[-1]  # 1x1 behind the pruned layer; it vanishes into this one
                assert restoring.op == "conv"
                channels = self._network.units[front].out_shape[0]
                saved = self._compute_ms([restoring])
                return self._compute_ms(folded_layers(layers, channels, record.kept)) - saved - glue_ms
        return self._compute_ms(layers) - glue_ms

    def _folds(self, unit: int, option: Record | None, front: int) -> bool:
        """Whether what brings back pruned channels in front can be folded into this option."""
        own = self._network.units[unit]
        foldable = entry(Variant(own, own.op)) is not None if option is None else option.foldable
        return foldable and self._network.units[front].following == unit
