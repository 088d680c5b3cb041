"""What a session knows of an inference that is under way."""

from dataclasses import dataclass, field

import numpy as np

from modeltree.tree import ExitFork, ModelTree, Node
from runtime.images import Entry
from runtime.result import Parts, Result
from runtime.selection.branch_selection import UNKNOWN_LINK, LinkState
from runtime.selection.early_exit import Onward, end_text, entropy_nats


@dataclass(kw_only=True)
class Walk:
    """What one inference has met so far.

    stays : why the cloud was not to be asked at the last fork, behind a colon.
    here, x, seen : the node above the last fork, None at the start; what it gave; what was known there.
    held : the answer of the last head that was not sure.
    sent_bytes : of the hand-over that the cloud answered.
    blocks_ms : [block, ms] of what ran here for the answer.
    radio_ms, raced_ms : how long the radio was on, or the processor, for answers that came too late or not at all.
    """

    parts: Parts
    tree: ModelTree
    x: np.ndarray | Entry
    nodes: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    mbps: list[float] = field(default_factory=list)
    blocks_ms: list[tuple[str, float]] = field(default_factory=list)
    answered_by: str = "device"
    why: str = ""
    stays: str = ""
    here: int | None = None
    seen: LinkState = UNKNOWN_LINK
    held: Onward | None = None
    sent_bytes: int = 0
    radio_ms: float = 0.0
    raced_ms: float = 0.0

    def sure(self, head: Node, logits: np.ndarray) -> bool:
        """Whether a head is sure enough of its logits, (1, classes). They are kept all the same: time may run out."""
        assert isinstance(head.fork, ExitFork)
        assert head.fork.entropy is not None
        entropy = entropy_nats(logits)
        self.held = Onward(blocks=(), x=logits, path=self.tree.path(head.id), within_s=0.0)
        if entropy > head.fork.entropy:
            return False
        self.note(self.held, f"entropy {entropy:.3g} is at most {head.fork.entropy:.3g}")
        return True

    def note(self, way: Onward, reason: str) -> None:
        """The device answered on this way."""
        went_on = "" if way.end.handover is None else f"went on here at place {way.end.handover.place}"
        self.answered_by, self.why = "device", f"{went_on or end_text(way.end)}: {reason}"
        self.nodes = [node.id for node in way.path]

    def result(self, output: np.ndarray, *, total_ms: float, met: bool) -> Result:
        """What came of it; output : (classes,) logits, or the other outputs of one image."""
        parts = self.parts
        parts.total = total_ms
        parts.wait = max(0.0, total_ms - parts.device - parts.encode - parts.transfer - parts.cloud)
        return Result(
            output=output, nodes=tuple(self.nodes), answered_by=self.answered_by, why=self.why, parts=parts, met=met,
            types=tuple(self.types), mbps=tuple(self.mbps), blocks_ms=tuple(self.blocks_ms),
            classes=self.tree.classes, answers=self.tree.outputs, sent_bytes=self.sent_bytes,
        )  # fmt: skip
