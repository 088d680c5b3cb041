"""Where early exits may stand."""

from modeltree.errors import ConfigError
from modeltree.network import NetworkSpec
from nas.bases import EXITS
from transforms import Network


def exit_places(network: Network, wanted: str, *, base: str) -> tuple[int, ...]:
    """Places of early exits, in rising order; neither the network's input nor its output.

    Parameters
    ----------
    wanted : `auto`, the base's own exits if it has any, otherwise the places nearest to a half and to three quarters of
        the MACs; `none`; or places, `4,7`.
    base : name of the network, as in `nas.bases.BASES`.

    Raises
    ------
    ConfigError : something else, or places where no exit can stand; lists those where one can.
    """
    spec = network.spec
    legal = range(1, len(spec.segments))
    if wanted == "none":
        return ()
    if wanted == "auto":
        return EXITS[base](spec) if base in EXITS else _halfway(spec)
    try:
        places = sorted({int(part) for part in wanted.split(",")})
    except ValueError:
        places = [-1]
    if not set(places) <= set(legal):
        written = ", ".join(f"{place} (after {spec.places[place].after})" for place in legal)
        raise ConfigError(f"exits are {wanted!r} but must be auto, none, or places like 4,7: legal are {written}")
    return tuple(places)


def _halfway(spec: NetworkSpec) -> tuple[int, ...]:
    """Half the way, and half the rest. What averaged maps say further in front is too little."""
    done = {place: spec.macs(0, place) / spec.macs() for place in range(1, len(spec.segments))}
    return tuple(sorted({min(done, key=lambda place: abs(done[place] - share)) for share in (1 / 2, 3 / 4) if done}))
