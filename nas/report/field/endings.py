"""How inferences of a field run ended where trees have early exits, or hand-overs of chosen bits: shares of each."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from nas.field.tally import Tally, endings
from nas.report.pieces import cells
from nas.report.pieces.blocks import section
from nas.report.pieces.colours import colours
from nas.report.pieces.table import named, table


def endings_section(tallies: Sequence[Tally]) -> Markup:
    """A table of the methods that have such forks; empty where none has."""
    shares = {one.name: ends for one in tallies if (ends := endings(one.run))}
    columns = list(dict.fromkeys(what for ends in shares.values() for what in ends))
    colour = colours(one.name for one in tallies)
    note = "Shares of the inferences: through which early exit they left, or in how many bits a number they crossed."
    shown = table(["method", *columns], [
        [named(one.title, colour[one.name]), *(cells.share(shares[one.name].get(what, math.nan)) for what in columns)]
        for one in tallies
        if one.name in shares
    ])  # fmt: skip
    return section("Exits and bits", shown, note=note, kind="measured")
