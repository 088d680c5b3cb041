"""What a unit's options take on the device, given what the unit in front of it was replaced by."""

import math
from collections.abc import Sequence

import numpy as np

from modeltree.profiles import DeviceProfile
from nas.compression.library import Choice, Library, Record
from nas.treesearch.problem import ABSORBED
from transforms import Network, Variant
from transforms.compose import entry, folded_layers


def absorbs(choice: Choice | None) -> bool:
    """Whether a unit behind this choice is superfluous: the variant returns the network's output already."""
    return choice is not None and (choice.ends_network or choice.technique == ABSORBED)


class UnitPrices:
    """Milliseconds of a unit's options on a device."""

    def __init__(self, network: Network, library: Library, device: DeviceProfile) -> None:
        self._network, self._library, self._device = network, library, device
        self.base_layers = {item.unit: list(item.layers) for item in network.spec.items if item.unit is not None}

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
        complete = self._network.units[unit].fc_span == 1
        return np.array([0.0 if complete or not absorbs(choice) else math.inf for choice in choices])

    def absorbed_ms(self, fronts: Sequence[Choice | None]) -> np.ndarray:
        """(fronts,) of a unit that a variant in front has made superfluous: free, and only then."""
        return np.array([0.0 if absorbs(choice) else math.inf for choice in fronts])

    def _ms(self, unit: int, option: Record | None, front: int | None, choice: Choice | None) -> float:
        if absorbs(choice):
            return math.inf
        layers = self.base_layers[unit] if option is None else list(option.layers)
        if front is not None and choice is not None and self._folds(unit, option, front):
            record = self._library.records[(front, choice)]
            if record.kept:
                restoring = record.layers[-1]  # 1x1 behind the pruned layer; it vanishes into this one
                assert restoring.op == "conv"
                channels = self._network.units[front].out_shape[0]
                saved = self._device.layer_ms(restoring)
                return self._device.compute_ms(folded_layers(layers, channels, record.kept)) - saved
        return self._device.compute_ms(layers)

    def _folds(self, unit: int, option: Record | None, front: int) -> bool:
        """Whether what brings back pruned channels in front can be folded into this option."""
        own = self._network.units[unit]
        foldable = entry(Variant(own, own.op)) is not None if option is None else option.foldable
        return foldable and self._network.units[front].following == unit
