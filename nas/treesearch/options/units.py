"""The options of every unit: the layer as it is, its variants, and being superfluous."""

from collections.abc import Sequence

import numpy as np

from nas.compression.library import Choice, Library, Record, covered
from nas.compression.predictor import Predictor
from nas.treesearch.options.prices import UnitPrices, absorbed
from nas.treesearch.options.pruning import worth_having
from nas.treesearch.problem import ABSORBED, UnitTable
from transforms import Network


class UnitOptions:
    """Tables of units, made in the order of the network: a unit's rows are the choices of the unit in front.

    choices : unit -> what its option numbers mean. dropped : (unit, choice) -> why it is not offered.
    """

    def __init__(
        self, network: Network, library: Library, predictor: Predictor, prices: UnitPrices,
        formats: Sequence[UnitPrices] = (),
    ) -> None:  # fmt: skip
        self._network, self._library, self._predictor, self._prices = network, library, predictor, prices
        self._formats = formats
        self.choices: dict[int, tuple[Choice | None, ...]] = {}
        self.dropped: dict[tuple[int, Choice], str] = {}

    def table(self, unit: int, front: int | None, barrier: int) -> UnitTable:
        """Options of a unit.

        Parameters
        ----------
        front : the unit in front in the same block, whose table was made before; None where there is none.
        barrier : the next place at which the network is sliced: no variant reaches over it.
        """
        fronts = (None,) if front is None else self.choices[front]
        records = self._within(unit, barrier)
        choices: list[Choice | None] = [None, *(record.choice for record in records)]
        pair_ms = self._prices.pairs_ms(unit, [None, *records], front, fronts)
        for count in sorted({0 if front is None else self._prices.left(front, choice) for choice in fronts} - {0}):
            assert front is not None
            choices.append(absorbed(count))
            pair_ms = np.column_stack([pair_ms, self._prices.absorbed_ms(front, fronts, count)])
        damage = np.array([self._damage(unit, choice) for choice in choices])
        exempt = [i for i, choice in enumerate(choices) if self._reaches_on(unit, choice)]
        kept, dropped = worth_having(choices, damage, pair_ms, exempt)
        self.dropped |= {(unit, choice): why for choice, why in dropped.items()}
        self.choices[unit] = tuple(choices[i] for i in kept)
        formats = [self._in_format(prices, unit, records, front, fronts, choices) for prices in self._formats]
        return UnitTable(
            unit=unit,
            layer=next(layer for layer in self._prices.base_layers[unit] if layer.op in ("conv", "fc")),
            labels=tuple("keep" if choices[i] is None else str(choices[i]) for i in kept),
            damage=damage[kept],
            pair_ms=pair_ms[:, kept],
            last_ms=self._prices.last_ms(unit, choices)[kept],
            format_ms=tuple(table[:, kept] for table in formats),
        )

    def _in_format(
        self, prices: UnitPrices, unit: int, records: list[Record], front: int | None,
        fronts: Sequence[Choice | None], choices: Sequence[Choice | None],
    ) -> np.ndarray:  # fmt: skip
        """`pair_ms` of all choices in another number format."""
        columns = [prices.pairs_ms(unit, [None, *records], front, fronts)]
        for choice in choices[1 + len(records) :]:
            assert front is not None
            assert choice is not None
            columns.append(prices.absorbed_ms(front, fronts, int(choice.rate))[:, None])
        return np.concatenate(columns, axis=1)

    def _within(self, unit: int, barrier: int) -> list[Record]:
        """Variants of a unit; those that stand for several units only if all of them lie in front of the barrier, and
        if they save time against all of them."""
        inside = {one.index for one in self._network.units_between(0, barrier)}
        records = [record for (owner, _), record in self._library.records.items() if owner == unit]
        kept = []
        for one in records:
            if why := self._library.useless((unit, one.choice)):
                self.dropped[unit, one.choice] = why
                continue
            several = covered(self._network.units[unit], one.choice)
            if len(several) > 1 and not one.choice.ends_network and self._prices.saved_ms(one) <= 0:
                self.dropped[unit, one.choice] = "saves no time on this device"
            elif inside.issuperset(several):
                kept.append(one)
        return kept

    def _damage(self, unit: int, choice: Choice | None) -> int:
        if choice is None or choice.technique == ABSORBED:
            return 0
        return self._predictor.damage[(unit, choice)]

    def _reaches_on(self, unit: int, choice: Choice | None) -> bool:
        """Whether a choice changes what the units behind cost."""
        if choice is not None and (choice.technique == ABSORBED or self._prices.left(unit, choice)):
            return True
        record = None if choice is None else self._library.records.get((unit, choice))
        return record is not None and record.kept > 0
