"""What a field run saw, inference by inference, as `field.json` keeps it.

Times are milliseconds, on the trace's clock seconds from its start. What was measured and what is predicted or computed
stands in fields of its own.
"""

import msgspec

from modeltree.errors import FormatError
from modeltree.met import Met
from modeltree.reward import Reward

FIELD_VERSION = 1


class Shot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One inference, measured.

    start_s : when it began, on the trace. link_mbps, link_rtt_ms : what the trace said then.
    types, mbps : bandwidth type and estimate (None: nothing known yet) at every fork. nodes : the path taken.
    answered_by, why : as `runtime.session.Result`. label : class of the image, None where it is not known.
    sent_bytes : of the hand-over that was answered, as it crossed.
    predicted_ms : what the tree said of device, coding, link (at the rate that it had) and server; None where the path
        was not answered as planned.
    error : largest difference to the torch network of that path relative to its largest logit; None: not checked.
    """

    start_s: float
    link_mbps: float
    link_rtt_ms: float | None = None
    types: tuple[int, ...]
    mbps: tuple[float | None, ...]
    nodes: tuple[int, ...]
    answered_by: str
    why: str
    predicted_class: int
    label: int | None = None
    device_ms: float
    encode_ms: float
    transfer_ms: float
    cloud_ms: float
    wait_ms: float
    total_ms: float
    met: bool = True
    sent_bytes: int = 0
    predicted_ms: tuple[float, float, float, float] | None = None
    error: float | None = None


class Leaf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A way through a method's tree: what was predicted, and means of what was measured where it was taken.

    text : what the path does, in a few words. accuracy : percent, as the bundle says. shots : how often it was taken.
    exit : the early exit that it leaves through, here or in the cloud. bits : of a hand-over on a fork of its own.
    *_predicted_ms : by the tree; transfer is the round trip and the bytes at the trace's own rate, as a mean over the
    starts where the path was taken (over all where it never was).
    *_ms : measured means over the shots that this path answered as planned; None where there are none.
    """

    leaf: int
    text: str
    accuracy: float
    shots: int
    device_predicted_ms: float
    transfer_predicted_ms: float
    cloud_predicted_ms: float
    device_ms: float | None = None
    transfer_ms: float | None = None
    cloud_ms: float | None = None
    exit: int | None = None
    bits: int | None = None


class MethodRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One method's turn over the trace.

    emulated_ms : (shots,), what `modeltree.tree.emulate` foretells with the tree's predictions, driven by the
        run's policy.
    replayed_ms : (shots,), the same with this run's measured block, server and round-trip times: what is left between
        it and the measured total is the estimator, the switch and the link itself.
    """

    name: str
    bundle: str
    shots: tuple[Shot, ...]
    leaves: tuple[Leaf, ...]
    emulated_ms: tuple[float, ...]
    replayed_ms: tuple[float, ...]


class FieldRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole field run.

    link : `namespaces` or `relay`. slowdown : what makes this machine play the device, in words; empty: nothing does.
    oracle_ms : per start the hindsight optimum, by reward, over all paths of all methods' trees, with measured parts
        and the true trace (computed). trace_time_s, trace_mbps : the link, for drawing.
    every_ms : from one inference's start to the next. counts: shots a method.
    met : what all methods met together, for `nas refit` and `nas search --measured`.
    policy : what drove the sessions: `measured`, `switch`, `exact` or the file of a trained one.
    interleaved : whether all methods were played at once, their inferences alternating.
    max_latency_ms : where latency is worth nothing by the reward that the trees were searched for.
    """

    version: int = FIELD_VERSION
    trace: str
    trace_origin: str
    rtt_ms: float
    edges_mbps: tuple[float, ...]
    representative_mbps: tuple[float, ...]
    link: str
    slowdown: str
    device: str
    cloud: str
    every_ms: float
    deadline_ms: float | None
    base: str
    machine: str
    commit: str
    date: str
    trace_time_s: tuple[float, ...]
    trace_mbps: tuple[float, ...]
    methods: tuple[MethodRun, ...]
    oracle_ms: tuple[float, ...]
    policy: str = "switch"
    interleaved: bool = False
    max_latency_ms: float = Reward().max_latency_ms
    met: Met | None = None

    @property
    def reward(self) -> Reward:
        """What accuracy and latency are worth [Wang 2020, eq. 7]."""
        return Reward(max_latency_ms=self.max_latency_ms)


def encode_field(field: FieldRun) -> bytes:
    """As JSON."""
    return msgspec.json.format(msgspec.json.encode(field), indent=1) + b"\n"


def decode_field(data: bytes, origin: str) -> FieldRun:
    """Read a field run; `origin` (a file name) goes into the error.

    Raises
    ------
    FormatError : not JSON, not a field run, or of another version.
    """
    try:
        found = msgspec.json.decode(data, type=FieldRun)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError(f"{origin} is not a field run: {error}") from error
    if found.version != FIELD_VERSION:
        raise FormatError(f"{origin} is of version {found.version}: it must be {FIELD_VERSION}; run nas field again")
    return found
