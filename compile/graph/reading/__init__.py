"""From core operators to stages. One function an operator, by its overload: what is not here is refused by name.

Members register their operators when they are imported; the registry is filled here and nowhere else.
"""

from compile.graph.reading import maps, movement, pointwise, products, reductions, resizing, rows, selection
from compile.graph.reading.reader import OPERATORS, read

__all__ = [
    "OPERATORS", "maps", "movement", "pointwise", "products", "read", "reductions", "resizing", "rows", "selection",
]  # fmt: skip
