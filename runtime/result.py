"""What one inference answered and how it came about."""

from dataclasses import dataclass, field

import numpy as np

from modeltree.errors import ConfigError
from modeltree.outputs import Output, taken_apart


@dataclass(kw_only=True)
class Parts:
    """Milliseconds of one inference by what they went into; `wait` is what no other part explains."""

    device: float = 0.0
    encode: float = 0.0
    transfer: float = 0.0
    cloud: float = 0.0
    wait: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """An answer and how it came about.

    output : (classes,) logits; of a network with other outputs all of them as it gives them, see `outputs`. nodes : ids
    of the tree's nodes, in order. answered_by : `device` or `cloud`. why : one sentence. types, mbps : bandwidth type
    and estimate at every fork. met : whether the deadline was kept. blocks_ms : (block, ms) of every block that ran
    here for this answer, in order. classes : their names.
    answers : what is in `output`, where that is not logits.
    sent_bytes : of the hand-over that was answered, the message as it crossed; 0 without one.
    """

    output: np.ndarray
    nodes: tuple[int, ...]
    answered_by: str
    why: str
    types: tuple[int, ...]
    mbps: tuple[float, ...]
    parts: Parts = field(default_factory=Parts)
    met: bool = True
    blocks_ms: tuple[tuple[str, float], ...] = ()
    classes: tuple[str, ...] = ()
    sent_bytes: int = 0
    answers: tuple[Output, ...] = ()

    @property
    def outputs(self) -> dict[str, np.ndarray]:
        """What the network answers by name, in its order; of a classifier its `logits`, (classes,)."""
        return taken_apart(self.output, self.answers) if self.answers else {"logits": self.output}

    @property
    def probabilities(self) -> np.ndarray:
        """(classes,) float64, the softmax of the logits: as sure as the network says, which is often too sure."""
        if self.answers:
            names = ", ".join(output.name for output in self.answers)
            raise ConfigError(f"the network answers {names}, no classes: see outputs")
        exponents = np.exp(self.output.astype(np.float64) - self.output.max())
        return exponents / exponents.sum()

    @property
    def label(self) -> str:
        """The name of the likeliest class."""
        return self.top(1)[0][0]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes, each with its probability, the likeliest first; all of them where there are fewer.

        Raises
        ------
        ConfigError : `count` is below 1.
        """
        if count < 1:
            raise ConfigError(f"the {count} likeliest classes were asked for: it must be 1 or more")
        probabilities = self.probabilities
        order = np.argsort(-probabilities, kind="stable")[:count]
        return [(self.classes[i] if self.classes else str(i), float(probabilities[i])) for i in order]
