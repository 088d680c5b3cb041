"""A server as a member: it runs its stages and passes what is left on. An `Engine` around the server's own."""

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from modeltree.errors import FormatError
from runtime.chain.forwarding import NobodyLeft, forward
from runtime.chain.neighbours import Neighbours
from runtime.chain.placement_file import Placement
from runtime.chain.route import PREFIX, Route, parse_route, routes
from runtime.server.interface import Answer, Busy, Engine, ModelInfo, UnknownModel
from runtime.server.metrics import SECONDS, prometheus

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_log = logging.getLogger(__name__)


class ChainMember:
    """Answers routes as models, and everything else as `engine` does. Thread-safe.

    Parameters
    ----------
    engine : serves the blocks of the stages, by hash.
    name : ours in the placement.
    neighbours : the other members, with their placement.
    least_s : seconds that a stage takes at least here, one at a time: plays a slower server on this machine.
    """

    def __init__(
        self, engine: Engine, *, name: str, neighbours: Neighbours, least_s: Mapping[int, float] | None = None,
        metrics: "CollectorRegistry | None" = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        neighbours.placement.address(name)
        self._engine, self.name, self.neighbours = engine, name, neighbours
        self._least_s, self._alone = dict(least_s or {}), threading.Lock()
        self._clock = clock
        self._hops = _Hops(metrics)

    @property
    def placement(self) -> Placement:
        """By which we go."""
        return self.neighbours.placement

    @property
    def models(self) -> Mapping[str, ModelInfo]:
        """The engine's own, and every route that begins with us."""
        return _Models(self._engine.models, self)

    @property
    def backlog_s(self) -> float:
        """Length of the engine's queue in seconds; an engine that does not say has none."""
        return float(getattr(self._engine, "backlog_s", 0.0))

    def ready(self) -> bool:
        """Whether the engine takes work and we hold one stage at least."""
        return self._engine.ready() and bool(self.stages)

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages that the placement gives us and whose blocks we have."""
        served = self._engine.models
        return tuple(
            index for index, stage in enumerate(self.placement.stages)
            if self.name in stage.members and all(block in served for block in stage.blocks)
        )  # fmt: skip

    def route_of(self, model: str) -> Route:
        """The route of a model's name, ours to begin.

        Raises
        ------
        FormatError : it is off. UnknownModel : it begins with somebody else, or we lack its blocks.
        """
        route = parse_route(model, self.placement)
        if route.members[0] != self.name:
            raise UnknownModel(f"the route begins with {route.members[0]}: this is {self.name}")
        lacking = set(range(route.stage, route.stage + route.held)) - set(self.stages)
        if lacking:
            raise UnknownModel(f"{self.name} has no blocks for stage {min(lacking)}: its bundle is another one")
        return route

    def info(self, model: str) -> ModelInfo:
        """Shapes of a route: of its first block's input and the last one's output.

        Raises
        ------
        NasError : see `route_of`.
        """
        route, served = self.route_of(model), self._engine.models
        entry = served[self.placement.stages[route.stage].blocks[0]]
        return ModelInfo(
            shape_in=entry.shape_in, shape_out=self._classes(), mean=entry.mean, std=entry.std, rule=entry.rule
        )

    def _classes(self) -> tuple[int, ...]:
        last = self._engine.models.get(self.placement.stages[-1].blocks[-1])
        return (-1,) if last is None else last.shape_out

    def infer(self, model: str, x: np.ndarray, *, deadline_s: float | None) -> Answer:
        """See `runtime.server.interface.Engine.infer`; a route is run here and passed on."""
        if not model.startswith(PREFIX):
            return self._engine.infer(model, x, deadline_s=deadline_s)
        began = self._clock()
        until = math.inf if deadline_s is None else began + deadline_s
        route = self.route_of(model)
        y = x
        for stage in range(route.stage, route.stage + route.held):
            y = self._run(stage, y, until)
        if route.held == len(route.members):
            return Answer(output=y, seconds=self._clock() - began)
        return Answer(output=self._pass_on(route, y, until), seconds=self._clock() - began)

    def _run(self, stage: int, x: np.ndarray, until: float) -> np.ndarray:
        """One of our stages."""
        least_s = self._least_s.get(stage, 0.0)
        if not least_s:
            return self._blocks(stage, x, until)
        with self._alone:
            started = self._clock()
            y = self._blocks(stage, x, until)
            time.sleep(max(0.0, least_s - (self._clock() - started)))
        return y

    def _blocks(self, stage: int, x: np.ndarray, until: float) -> np.ndarray:
        for block in self.placement.stages[stage].blocks:
            left = None if math.isinf(until) else until - self._clock()
            if left is not None and left <= 0:
                raise Busy("the deadline passed between two blocks: allow more time")
            x = self._engine.infer(block, x, deadline_s=left).output
        return x

    def _pass_on(self, route: Route, y: np.ndarray, until: float) -> np.ndarray:
        """What is left, by the route or another way; by ourselves as far as we can where nobody else does."""
        rest = route.after(retries=route.retries)
        classes = self._classes()
        shape = classes if classes != (-1,) else None
        try:
            return forward(
                self.neighbours, rest, y, classes=shape, until=until, clock=self._clock, note=self._hops.note
            ).output
        except NobodyLeft as error:
            own = self._own_way(rest)
            if own is None or route.retries == 0:
                raise Busy(str(error)) from error
            _log.warning("%s goes on itself: %s", self.name, error)
            self._hops.note(self.name, "itself", 0.0)
            return self.infer(own.name, y, deadline_s=None if math.isinf(until) else until - self._clock()).output

    def _own_way(self, rest: Route) -> Route | None:
        """What is left with as much of it as we hold, from its first stage on."""
        mine = list(itertools.takewhile(lambda stage: stage in self.stages, itertools.count(rest.stage)))
        if not mine:
            return None
        members = (self.name,) * len(mine)
        behind = mine[-1] + 1
        if behind == len(self.placement.stages):
            return Route(placement=rest.placement, stage=rest.stage, retries=0, members=members)
        onward = routes(self.placement, behind, 0, self.neighbours.healthy)
        if onward is None:
            return None
        return Route(placement=rest.placement, stage=rest.stage, retries=0, members=members + onward.members)

    def close(self) -> None:
        """Close the connections to the neighbours."""
        self.neighbours.close()


class _Models(Mapping[str, ModelInfo]):
    """The engine's models, and routes that are parsed when they are asked for."""

    def __init__(self, own: Mapping[str, ModelInfo], member: ChainMember) -> None:
        self._own, self._member = own, member

    def __getitem__(self, name: str) -> ModelInfo:
        if name.startswith(PREFIX):
            try:
                return self._member.info(name)
            except (FormatError, UnknownModel) as error:
                raise KeyError(str(error)) from error
        return self._own[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


class _Hops:
    """Calls to other members, for Prometheus."""

    def __init__(self, registry: "CollectorRegistry | None") -> None:
        self._calls: Any = None
        if registry is not None:
            library = prometheus()
            labels, here = ("to", "outcome"), {"registry": registry}
            self._calls = library.Counter("nas_hops", "Calls to other members by outcome.", labels, **here)
            self._seconds = library.Histogram(
                "nas_hop_seconds", "From asking a member to its answer.", ("to",), buckets=SECONDS, **here
            )

    def note(self, to: str, how: str, seconds: float) -> None:
        """One call has ended."""
        if self._calls is not None:
            self._calls.labels(to=to, outcome=how).inc()
            if how == "ok":
                self._seconds.labels(to=to).observe(seconds)
