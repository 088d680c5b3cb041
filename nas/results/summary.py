"""The numbers a report is made of, as a run leaves them in JSON.

Keys that we do not know are passed over, and what a run may not have is optional: a page that lacks a section serves
someone after hours of search, an error does not.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from modeltree.errors import FormatError
from nas.names import TITLES

SUMMARY_VERSION = 1


class AlongTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Means over inferences started all along the trace; simulated."""

    latency_ms: float
    reward: float
    p95_latency_ms: float = math.nan
    accuracy: float = math.nan


class MethodRow(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run the network. Origins are `measured` or `predicted`."""

    method: str
    reward: float
    latency_ms: float
    accuracy: float
    accuracy_origin: str = "predicted"
    latency_origin: str = "predicted"
    predicted_reward: float | None = None
    predicted_accuracy: float | None = None
    energy_mj: float | None = None
    evaluations: float | None = None
    seconds: float | None = None
    along_trace: AlongTrace | None = None

    @property
    def title(self) -> str:
        """What a reader calls it."""
        return TITLES.get(self.method, self.method)


class Exact(msgspec.Struct, frozen=True, kw_only=True):
    """The predictor's optimum by dynamic programming; found_percent is the share of it that the search reached."""

    reward: float
    latency_ms: float = math.nan
    accuracy: float = math.nan
    found_percent: float = math.nan
    seconds: float | None = None


class Unforked(msgspec.Struct, frozen=True, kw_only=True):
    """The best single path, taken whatever the link is like; all predicted. path : what it does, in words."""

    reward: float
    latency_ms: float
    accuracy: float
    path: str = ""


class LinkState(msgspec.Struct, frozen=True, kw_only=True):
    """A bandwidth type: what the tree does while the link is so, and what every method takes there (predicted, ms).

    range, path : in words. mbps, rtt_ms : that stand for it. leaf : the tree's node where its path ends.
    latency_ms : by method, `unforked` among them where it is known.
    """

    range: str
    mbps: float
    rtt_ms: float
    chance: float
    leaf: int
    path: str
    latency_ms: dict[str, float]


class Predictor(msgspec.Struct, frozen=True, kw_only=True):
    """Predicted against measured accuracy, percent."""

    points: list[tuple[float, float]]
    rank_correlation: float = math.nan
    mean_error: float = math.nan


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A path of the tree."""

    leaf: int
    latency_ms: float
    accuracy: float
    chance: float


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Bandwidth and latencies over time, all of one length."""

    time_s: list[float]
    bandwidth_mbps: list[float]
    latency_ms: dict[str, list[float]] = {}


class ExitRow(msgspec.Struct, frozen=True, kw_only=True):
    """An early exit of the base network: points lost if all samples leave, and what its confidence does."""

    exit: int
    place: int
    drop: float
    entropy: float
    rate: float
    loss: float
    head_ms: float


class CodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A coded hand-over of the base network; `kept` channels behind a bottleneck, 0 without one."""

    place: int
    bits: int
    kept: int
    bytes: float
    raw_bytes: int
    drop: float


class PictureRow(msgspec.Struct, frozen=True, kw_only=True):
    """A way to send the picture itself (`modeltree.image_codes`), alone: mean bytes of a file, points lost by it."""

    code: str
    bytes: float
    raw_bytes: int
    drop: float
    encode_ms: float


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """A compression that the search was not offered."""

    layer: str
    choice: str
    why: str


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """What a compression alone would save on the device, predicted by its profile (`nas.treesearch.options.savings`).

    why_not : why the search was not offered it, empty if it was.
    """

    layer: str
    choice: str
    covers: int = 1
    base_ms: float = 0.0
    saves_ms: float = 0.0
    drop: float = 0.0
    why_not: str = ""
    measured_ms: tuple[float, float] | None = None


class Finetuning(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy of the tree before and after, and of the base network; percent."""

    before: float
    after: float
    base: float
    steps: int = 0


class ScenarioSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the tree was searched for."""

    trace: str = ""
    trace_origin: str = ""
    rtt_ms: float = math.nan
    bandwidth_mbps: list[float] = []
    edges_mbps: list[float] = []
    device: str = ""
    device_origin: str = ""
    cloud: str = ""
    cloud_origin: str = ""


class BaseSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The network that was compressed and cut; accuracy in percent, on test images."""

    name: str = ""
    accuracy: float = math.nan
    macs: int = 0
    layers: int = 0
    places: list[int] = []


class MeasureSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What accuracy is a percentage of, where that is not right classes.

    low, high : of the user's measure; 0 and 100 % stand for them. outputs : kinds by name, where answers are held
    against the base network's.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    outputs: dict[str, str] = {}


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Everything. curves : per searcher, (evaluations, best reward so far, predicted). chosen : whose tree is handed
    over, under the name `tree`."""

    version: int = SUMMARY_VERSION
    config: dict[str, Any] = {}
    scenario: ScenarioSummary = ScenarioSummary()
    base: BaseSummary = BaseSummary()
    measure: MeasureSummary | None = None
    methods: list[MethodRow] = []
    chosen: str = ""
    exact: Exact | None = None
    unforked: Unforked | None = None
    link_states: list[LinkState] | None = None
    oracle_along_trace: AlongTrace | None = None
    curves: dict[str, list[tuple[float, float]]] | None = None
    predictor: Predictor | None = None
    branches: list[Branch] | None = None
    exits: list[ExitRow] | None = None
    codes: list[CodeRow] | None = None
    pictures: list[PictureRow] | None = None
    along_trace: Series | None = None
    dropped: list[Dropped] | None = None
    savings: list[Saving] | None = None
    finetuning: Finetuning | None = None
    seconds: dict[str, float | None] | None = None
    provenance: dict[str, Any] | None = None

    def method(self, name: str) -> MethodRow | None:
        """A method by name, None if it was not run."""
        return next((method for method in self.methods if method.method == name), None)


def read_summary(summary: Mapping[str, Any]) -> Summary:
    """The summary, checked.

    Raises
    ------
    FormatError : something has the wrong type or is missing, or the version is not ours; says where.
    """
    try:
        found = msgspec.convert(dict(summary), Summary)
    except msgspec.ValidationError as error:
        raise FormatError(f"this is not the summary of a run: {error}") from error
    if found.version != SUMMARY_VERSION:
        raise FormatError(f"the summary has version {found.version}, we read {SUMMARY_VERSION}: run the search again")
    return found
