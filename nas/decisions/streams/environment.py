"""The stream as a Gymnasium environment: a step is a task, an action its exit and cut [Song 2021, sec. III-B].

`import nas` registers it as `nas/TaskStream-v0`; `gymnasium.make("nas/TaskStream-v0", k=2.0)` makes one, and
`gymnasium.make_vec("nas/TaskStream-v0", num_envs=64, vectorization_mode="vector_entry_point")` many that step at once.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from modeltree.errors import ConfigError
from modeltree.link.traces import Trace
from modeltree.streams.costs import MOST_IMAGES, ActionTable, StreamCosts, load_costs
from modeltree.streams.gain import Gain
from modeltree.streams.system import PAPER_MBPS, Played, StreamSystem, Timeline
from modeltree.streams.tasks import Arrivals, Task
from runtime.stream.learned import Observer

COSTS = "alexnet_exits4"
"""The shipped costs: the paper's network with its four exits, trained and measured here."""


def shipped_costs() -> StreamCosts:
    """AlexNet with four exits on a slow device and a server; `origin` says from where every number is."""
    return load_costs(Path(str(files("modeltree.streams").joinpath(f"{COSTS}.json"))))


def setting(
    *, costs: StreamCosts | None = None, table: ActionTable | None = None, p: float = 0.1, k: float = 3.0,
    devices: int = 3, slot_ms: float = 10.0, mbps: float = PAPER_MBPS, alpha: float = 0.1, beta: float = 16.0,
    trace: Trace | None = None, strict: bool = True,
) -> tuple[StreamSystem, Arrivals]:  # fmt: skip
    """A system and its arrivals; the parameters are those of `TaskStreamEnv`."""
    actions = (costs or shipped_costs()).table() if table is None else table
    system = StreamSystem(table=actions, mbps=mbps, gain=Gain(alpha=alpha, beta=beta), trace=trace, strict=strict)
    return system, Arrivals(p=p, k=k, devices=devices, slot_ms=slot_ms)


class TaskStreamEnv(gymnasium.Env[np.ndarray, np.int64]):
    """One episode is a stream of tasks; the reward is eq. 1's gain, 0 for a task that is late or not run.

    Parameters
    ----------
    costs : what exits and cuts cost; fitted to measurements, `StreamCosts.origin` says to which. The shipped ones
        unless given (`nas.profiling.stream_costs` makes others). table : actions as they are, in place of costs.
    tasks : of an episode; 100 in the paper's figures 5 to 7.
    p, k, devices : arrival rate, deadline in slots an image, end devices; 0.1, 3 and 3 in the paper's figures.
    slot_ms : length of a slot; the paper does not give it. Ours lets k = 1 keep what the second exit takes on the
        device alone, and k = 4 what the last one does.
    mbps : of the link; the paper's 1000 kbit/s. trace : a link that changes, in its place; it begins with the stream.
    alpha, beta : of the gain, the paper's 0.1 and 16.
    strict : the paper's order at the server, which every task passes; False: those that end on the device do not.

    Observations are `Observer`'s; actions are the costs' (exit, cut), 0 for not running the task.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, *, tasks: int = 100, render_mode: str | None = None, **of: Any) -> None:
        if tasks < 1:
            raise ConfigError(f"tasks is {tasks}: an episode must have at least 1")
        self.tasks, self.render_mode = tasks, render_mode
        self.system, self.arrivals = setting(**of)
        self.observer = Observer(self.arrivals.deadline_ms(MOST_IMAGES))
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(self.system.table))
        self._stream: list[Task] = []
        self._at = 0
        self._timeline = Timeline(self.system, self.arrivals.devices)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin a stream."""
        super().reset(seed=seed)
        self._stream = self.arrivals.draw(self.tasks, self.np_random)
        self._at, self._timeline = 0, Timeline(self.system, self.arrivals.devices)
        return self._observed(), {}

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Decide a task."""
        if not self._at < len(self._stream):
            raise ConfigError("the stream is over or has not begun: call reset first")
        played = self._timeline.step_(self._stream[self._at], int(action))
        self._at += 1
        over = self._at == len(self._stream)
        self._at -= over  # the last observation is the last task's, seen from behind
        observed = self._observed()
        self._at += over
        return observed, played.gain, over, False, _told(played)

    def _observed(self) -> np.ndarray:
        return self.observer.of(self._timeline.observe(self._stream[self._at]))


def _told(played: Played) -> dict[str, Any]:
    """What became of the task, in plain units."""
    return {"latency_ms": played.ends_ms - played.task.arrival_ms, "late": played.late, "run": bool(played.action)}
