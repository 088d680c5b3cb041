"""The spaces that all methods search: one over the tree, one over whole branches per bandwidth type."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from modeltree.errors import ConfigError
from nas.compression.library import Library
from nas.compression.predictor import Predictor
from nas.exits.catalogue import KnownEndings
from nas.treesearch.exact import solve
from nas.treesearch.options.number_formats import KnownFormats
from nas.treesearch.problem import Ending
from nas.treesearch.space import Scenario, Space, build_space
from transforms import Network

_DEAREST, _HALVINGS = 1e6, 12


@dataclass(frozen=True, kw_only=True)
class SearchSpaces:
    """The tree's space, one space of whole branches per bandwidth type, and one of branches that serve all types alike.

    cuts : places at which the network is sliced. library : the variants that the spaces offer.
    """

    network: Network
    cuts: tuple[int, ...]
    library: Library
    scenario: Scenario
    tree: Space
    branches: tuple[Space, ...]
    unforked: Space


def build_search_spaces(
    network: Network, library: Library, predictor: Predictor, scenario: Scenario, cuts: Sequence[int], *,
    single_root: bool, max_loss: float, endings: KnownEndings | None = None, formats: KnownFormats | None = None,
) -> SearchSpaces:  # fmt: skip
    """The spaces that all methods search."""

    def space(scenario: Scenario, levels: Sequence[int] | None, single_root: bool) -> Space:
        return build_space(
            network, library, predictor, scenario, cuts, levels=levels, single_root=single_root, max_loss=max_loss,
            endings=endings, formats=formats,
        )  # fmt: skip

    whole = (0, len(network.spec.segments))
    return SearchSpaces(
        network=network, cuts=tuple(cuts), library=library, scenario=scenario,
        tree=space(scenario, None, single_root),
        branches=tuple(space(scenario.alone(kind), whole, False) for kind in range(scenario.types.count)),
        unforked=space(scenario, whole, True),
    )  # fmt: skip


def within_energy(spaces: SearchSpaces, limit_mj: float) -> SearchSpaces:
    """The same spaces with a price on energy, the lowest at which the best tree takes `limit_mj` at most.

    A Lagrangian: the price is found by bisection, each time with the exact optimum. Where the optimum jumps over the
    limit, the tree may take less than it could.

    Raises
    ------
    ConfigError : no tree takes so little, or the device's profile says nothing about energy.
    """
    problem = spaces.tree.problem
    if not problem.compute_w:
        raise ConfigError(f"profile {spaces.scenario.device.name} has no energy parameters: add them, or set no limit")

    def taken(price: float) -> float:
        return solve(replace(problem, energy_worth=price)).outcome.energy_mj

    low, high = 0.0, problem.latency_worth / problem.compute_w
    if taken(low) <= limit_mj:
        return spaces
    while (least := taken(high)) > limit_mj:
        if high > _DEAREST:
            raise ConfigError(f"energy-mj is {limit_mj:g}, but no tree takes less than {least:.3g}: allow that much")
        low, high = high, 4.0 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if taken(middle) > limit_mj else (low, middle)
    return _changed(spaces, lambda space: priced(space, high, limit_mj))


def without_endings(spaces: SearchSpaces) -> SearchSpaces:
    """The same spaces, every path going on, or handing over plain numbers or the picture, however that is coded; in
    every number format.

    A plan of them is one of `spaces`, too.
    """
    return _changed(spaces, _plain)


def without_pictures(spaces: SearchSpaces) -> SearchSpaces:
    """The same spaces, the picture crossing as raw pixels alone; a plan of them is one of `spaces`, too."""
    return _changed(spaces, _raw)


def _changed(spaces: SearchSpaces, change: Callable[[Space], Space]) -> SearchSpaces:
    branches = tuple(map(change, spaces.branches))
    return replace(spaces, tree=change(spaces.tree), branches=branches, unforked=change(spaces.unforked))


def _raw(space: Space) -> Space:
    first, *others = space.problem.blocks
    first = replace(first, endings=(first.endings[0][:1], *first.endings[1:]))
    return replace(space, problem=replace(space.problem, blocks=(first, *others)))


def _plain(space: Space) -> Space:
    def stripped(at: tuple[Ending, ...]) -> tuple[Ending, ...]:
        plain = at[0].kind, at[0].code
        return tuple(ending for ending in at if (ending.kind, ending.code) == plain or ending.picture)

    blocks = tuple(replace(block, endings=tuple(map(stripped, block.endings))) for block in space.problem.blocks)
    return replace(space, problem=replace(space.problem, blocks=blocks))


def priced(space: Space, price: float, limit_mj: float) -> Space:
    return replace(space, problem=replace(space.problem, energy_worth=price, energy_limit_mj=limit_mj))
