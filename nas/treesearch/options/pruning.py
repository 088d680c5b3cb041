"""Which options of a unit are worth offering to a search."""

from collections.abc import Collection, Sequence

import numpy as np

from nas.compression.library import Choice


def worth_having(
    choices: Sequence[Choice | None], damage: np.ndarray, pair_ms: np.ndarray, exempt: Collection[int]
) -> tuple[list[int], dict[Choice, str]]:
    """Drop options that save no time on this device, or that another one beats in both time and accuracy.

    Parameters
    ----------
    choices : of a unit; None keeps the layer. damage : (choices,) int, harm to accuracy.
    pair_ms : (options of the unit in front, choices) device time.
    exempt : positions that stay and beat nobody, because they change what the units behind cost: a pruned unit speeds
        up the one behind it, and one that ends the network makes all behind it superfluous.

    Returns
    -------
    Positions that stay, in order, and for every choice that does not the reason.
    """
    kept: list[int] = []
    dropped: dict[Choice, str] = {}
    for i, choice in enumerate(choices):
        if choice is None or i in exempt:
            kept.append(i)
            continue
        rival = next((j for j in range(len(choices)) if j not in exempt and _beats(j, i, damage, pair_ms)), None)
        if rival is None:
            kept.append(i)
        elif choices[rival] is None:
            dropped[choice] = "saves no time on this device"
        else:
            dropped[choice] = f"{choices[rival]} is as fast and as accurate"
    return kept, dropped


def _beats(j: int, i: int, damage: np.ndarray, pair_ms: np.ndarray) -> bool:
    """Whether option j is nowhere worse than i, and better somewhere; of equals the earlier one."""
    if j == i or damage[j] > damage[i] or np.any(pair_ms[:, j] > pair_ms[:, i]):
        return False
    return bool(damage[j] < damage[i] or np.any(pair_ms[:, j] < pair_ms[:, i]) or j < i)
