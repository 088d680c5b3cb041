"""What an agent learnt of a stream, without torch: a small network over three numbers [Song 2021, sec. III-B]."""

from dataclasses import dataclass

import numpy as np

from modeltree.streams.costs import MOST_IMAGES
from modeltree.streams.system import Observation, StreamSystem
from runtime.selection.policies import Dense

OBSERVED = 3


class Observer:
    """What a learning planner sees of a task, as three numbers within -1..1 [Song 2021, sec. III-B].

    (D_n, tau_n - max(t_h^s - t_n^a, 0), max(t_(n-1)^f - t_n^a, 0)): the size over the largest, and times over the
    longest deadline; what is later still can be in time for nobody and counts as that.
    """

    def __init__(self, longest_ms: float) -> None:
        self.longest_ms = longest_ms

    def __call__(self, images: np.ndarray, left_ms: np.ndarray, wait_ms: np.ndarray) -> np.ndarray:
        """(..., 3), float32."""
        columns = (
            images / MOST_IMAGES, np.clip(left_ms / self.longest_ms, -1.0, 1.0),
            np.clip(wait_ms / self.longest_ms, 0.0, 1.0),
        )  # fmt: skip
        return np.stack(columns, -1).astype(np.float32)

    def of(self, observation: Observation) -> np.ndarray:
        """(3,), float32, of what a planner sees."""
        left_ms = (observation.deadline_ms - observation.device_wait_ms) / self.longest_ms
        wait_ms = observation.server_wait_ms / self.longest_ms
        return np.array(
            [observation.images / MOST_IMAGES, min(max(left_ms, -1.0), 1.0), min(max(wait_ms, 0.0), 1.0)], np.float32
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """The action that a network values highest; of a system's table. longest_ms : of the observer it learnt with."""

    system: StreamSystem
    network: Dense
    longest_ms: float

    def choose(self, observation: Observation) -> int:
        """Looks at the paper's state."""
        return int(self.network(Observer(self.longest_ms).of(observation)).argmax())
