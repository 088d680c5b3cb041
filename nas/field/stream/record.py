"""What a stream that was played for real saw, task by task, and what the model says of the same arrivals."""

import math
from collections.abc import Sequence

import msgspec

from modeltree.units import ms_from_s


class TaskLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task, measured; times are milliseconds on the stream's clock, NaN-free: 0 where it did not come to that.

    number : in order of arrival. due_ms : when it was to arrive; arrived_ms : when it did. right : images whose
    class was told right; None where labels are not known.
    """

    number: int
    device: int
    images: int
    deadline_ms: float
    due_ms: float
    arrived_ms: float
    action: int
    exit: int
    cut: int
    answered_by: str
    why: str
    in_time: bool
    gain: float
    retried: bool
    began_ms: float
    computed_ms: float
    sent_ms: float
    ended_ms: float
    server_ms: float
    plan_us: float
    right: int | None = None

    @property
    def lateness_ms(self) -> float:
        """Of its answer, above the deadline; negative when early, NaN when there was none."""
        if self.answered_by == "nobody":
            return math.nan
        return self.ended_ms - self.arrived_ms - self.deadline_ms


class StreamTally(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a policy came to. late : answered, but too late. dropped : no answer. predicted_gain : by the model."""

    policy: str
    tasks: int
    gain: float
    in_time: int
    late: int
    dropped: int
    by_server: int
    retried: int
    p95_latency_ms: float
    worst_lateness_ms: float
    plan_us: float
    span_s: float
    predicted_gain: float | None = None
    bound: float | None = None


class StreamRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One policy's turn. server_down_ms : (from, to) of when the server was killed and started again."""

    policy: str
    lines: tuple[TaskLine, ...]
    server_down_ms: tuple[float, float] | None = None
    predicted_gain: float | None = None
    bound: float | None = None


class StreamRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All turns, and what they were played with. link : a trace's name, `mbps` is its mean; empty: steady."""

    bundle: str
    base: str
    devices: int
    mbps: float
    rtt_ms: float
    order: str
    slowdown: float
    tasks_from: str
    machine: str
    commit: str
    date: str
    table: dict[str, list[float]]
    runs: tuple[StreamRun, ...]
    link: str = ""


def tally(run: StreamRun) -> StreamTally:
    """Counts and sums of a turn."""
    lines = run.lines
    answered = [line for line in lines if line.answered_by != "nobody"]
    took = sorted(line.ended_ms - line.arrived_ms for line in answered)
    late = [line for line in answered if not line.in_time]
    begins = min((line.arrived_ms for line in lines), default=0.0)
    ends = max((line.ended_ms for line in lines), default=0.0)
    return StreamTally(
        policy=run.policy, tasks=len(lines), gain=math.fsum(line.gain for line in lines),
        in_time=sum(line.in_time for line in lines), late=len(late), dropped=len(lines) - len(answered),
        by_server=sum(line.answered_by == "server" for line in lines), retried=sum(line.retried for line in lines),
        p95_latency_ms=_quantile(took, 0.95), worst_lateness_ms=max((line.lateness_ms for line in late), default=0.0),
        plan_us=_quantile(sorted(line.plan_us for line in lines), 0.5), span_s=(ends - begins) / ms_from_s(1.0),
        predicted_gain=run.predicted_gain, bound=run.bound,
    )  # fmt: skip


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0
