"""A route: which member runs which of the stages that are left. It travels as the name of the model that is asked for.

    chain.PLACEMENT.STAGE.RETRIES.MEMBER.MEMBER...

names the placement by its id, the stage that is asked for, how often it may still be sent another way, and a member for
that stage and each after it. Members are names, never addresses; a stage is only ever followed by the next one and a
member never comes back once it was left, so a request can neither be sent to a stranger nor in a circle, and it is
passed on as often as there are stages left, whatever it says.
"""

import itertools
import re
from dataclasses import dataclass, replace

from modeltree.errors import FormatError
from runtime.chain.placement_file import DEVICE, Placement

PREFIX = "chain."
MAX_RETRIES = 2
MAX_CHARACTERS = 1024
_FORM = re.compile(r"chain\.([0-9a-f]{16})\.(0|[1-9][0-9]?)\.([0-9])((?:\.[a-z0-9][a-z0-9_-]{0,31})+)")


@dataclass(frozen=True, kw_only=True)
class Route:
    """members : for `stage` and each after it."""

    placement: str
    stage: int
    retries: int
    members: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it travels."""
        return ".".join((PREFIX[:-1], self.placement, str(self.stage), str(self.retries), *self.members))

    @property
    def held(self) -> int:
        """How many stages the first member runs at once."""
        return sum(1 for _ in itertools.takewhile(lambda name: name == self.members[0], self.members))

    def after(self, *, retries: int) -> "Route":
        """What is left behind the first member's stages."""
        held = self.held
        return replace(self, stage=self.stage + held, members=self.members[held:], retries=retries)


def parse_route(name: str, placement: Placement) -> Route:
    """The route of a model's name.

    Raises
    ------
    FormatError : it is none, of another placement, or goes where the placement does not.
    """
    match = _FORM.fullmatch(name) if len(name) <= MAX_CHARACTERS else None
    if match is None:
        raise FormatError("the route is malformed: it must be chain.PLACEMENT.STAGE.RETRIES.MEMBER...")
    members = tuple(match[4][1:].split("."))
    route = Route(placement=match[1], stage=int(match[2]), retries=int(match[3]), members=members)
    check_route(route, placement)
    return route


def check_route(route: Route, placement: Placement) -> None:
    """Refuse a route that a placement does not allow.

    Raises
    ------
    FormatError : it is of another placement, too long or short, names strangers, or comes back to whom it left.
    """
    if route.placement != placement.id:
        raise FormatError(
            f"the route is of placement {route.placement}: here it is {placement.id}; read the file again"
        )
    if route.stage + len(route.members) != len(placement.stages):
        raise FormatError(f"the route names {len(route.members)} members from stage {route.stage} on: one for each")
    if route.retries > MAX_RETRIES:
        raise FormatError(f"the route may be changed {route.retries} times: {MAX_RETRIES} at most")
    for stage, name in enumerate(route.members, route.stage):
        if name == DEVICE or name not in placement.stages[stage].members:
            raise FormatError(f"the route gives stage {stage} to {name}: the placement does not")
    runs = [name for name, _ in itertools.groupby(route.members)]
    if len(set(runs)) != len(runs):
        raise FormatError("the route comes back to a member that it left")


def routes(placement: Placement, stage: int, retries: int, healthy: frozenset[str], first: str = "") -> Route | None:
    """A route from a stage on over healthy members, the planned ones as far as they are; None where there is none.

    first : the member to begin with, if any.
    """
    members: list[str] = []
    for index in range(stage, len(placement.stages)):
        allowed = [name for name in placement.stages[index].members if name in healthy]
        if index == stage and first:
            allowed = [first] if first in placement.stages[index].members else []
        left = set(members) - {members[-1]} if members else set()
        allowed = [name for name in allowed if name not in left]
        if not allowed:
            return None
        members.append(allowed[0])
    return Route(placement=placement.id, stage=stage, retries=retries, members=tuple(members))
