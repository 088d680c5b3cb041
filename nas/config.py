"""Everything a search is told, frozen."""

import math
from typing import Any, get_args

import msgspec

from modeltree.errors import ConfigError, FormatError, unknown
from modeltree.image_codes import image_code
from modeltree.outputs import OutputKind
from modeltree.preprocessing import Channels, PictureRule, Resize
from modeltree.preprocessing import image_size as sized
from nas.names import EXECUTORS, IMAGE_CODES, METHODS, NUMBER_FORMATS, TECHNIQUE_NAMES

DISTILLATION = ("block", "branch")
FORKS = ("independent", "markov")
MEASURES = ("perfect", "estimated")


class SearchConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One search. `K` and `N` are the paper's: bandwidth types and blocks.

    base : a known network, or `file.py:factory`. weights : safetensors; without them the network is trained first.
    allow_chance : go on with a network that is right no more often than a guess.
    data : `digits`, `cifar10:DIR`, `imagefolder:DIR`, or `images:DIR` without classes.
    metric : `file.py:name`, the user's own measure, see `nas.quality.own_metric`; None for right classes, or agreement
        with the base network where it answers with something else.
    outputs : how agreement is judged, `name=kind`, see `nas.quality.agreement`; by their shapes unless said.
    image_size : height and width in pixels, or `WIDTHxHEIGHT`. channels : what the network takes, RGB, BGR or L (grey).
    resize : `shorter-side` cuts a picture to the network's proportions, `stretch` bends it.
    mean, std : what pixels of 0..1 were normalised by in training; the training images' own unless said.
    trace : a shipped scene or a file. rtt_ms : round-trip time; None takes the scene's.
    device, cloud : shipped profiles or files.
    methods : which to run; the fixed baselines (device_only, cloud_raw, cloud_jpeg) always are.
    max_loss : predicted points of accuracy that a path may lose; each beyond counts ten times in the search. 100
        switches it off, which is the paper's reward as it stands.
    max_latency_ms : where latency is worth nothing by [Wang 2020, eq. 7]: a millisecond costs as much as 150 points of
        accuracy divided by this. The paper's 500 suits slow devices and links; where a network takes a millisecond or
        two nothing but accuracy counts then, and a few times what it takes suits better.
    budget : episodes of the tree search, branch searches included.
    forks : `independent` (the paper) or `markov` (chances of changing type as the trace shows them).
    measure : how forks are valued: `perfect`, as if the type were known and were its representative (the paper), or
        `estimated`, by what hand-overs meet along the trace where the runtime's estimator takes that type.
    distillation : `block` (variants once, plugged) or `branch` (every composed network trained whole, as the paper).
    measured : what was met by trees of a search with the same profiles, a field run or a session's log
        (`modeltree.met`): the search reckons with that. None: with the profiles as they are.
    exits : early exits as forks: `none`, `auto`, or places such as `4,7`. bits : widths at which a hand-over may cross,
        1..16 each, beside plain numbers. bottleneck : shares of the channels that a learned bottleneck may keep.
    image_codes : ways to send the picture itself beside raw pixels (`modeltree.image_codes`); without any the search
        has raw pixels alone, as with distillation by branch. A side that is not smaller than the network's image is
        left out.
    energy_mj : what an inference may take from the device's battery on average; None for no limit.
    formats : number formats that a block may be computed in, f32 among them; the device's profile must price them.
    time_here : the device is this machine: every compression is compiled and timed on one thread, and what saves no
        time is not offered.
    finetune_steps : of joint fine-tuning at the end; 0 leaves it out. None chooses by the size of the data.
    """

    base: str = "vgg11"
    K: int = 2
    N: int = 3
    data: str = "digits"
    weights: str | None = None
    image_size: int | str = 32
    channels: Channels = "RGB"
    resize: Resize = "shorter-side"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    allow_chance: bool = False
    metric: str | None = None
    outputs: tuple[str, ...] = ()
    trace: str = "wifi_edge"
    rtt_ms: float | None = None
    device: str = "zero2w_ncnn_1t"
    cloud: str = "cloud_gpu"
    methods: tuple[str, ...] = METHODS
    techniques: tuple[str, ...] = TECHNIQUE_NAMES
    seed: int = 0
    max_loss: float = 0.8
    max_latency_ms: float = 500.0
    budget: int = 2000
    forks: str = "independent"
    measure: str = "perfect"
    measured: str | None = None
    single_root: bool = False
    distillation: str = "block"
    branch_steps: int = 60
    finetune_steps: int | None = None
    fair_chances: bool = True
    boosting: bool = True
    pool: bool = True
    exits: str = "none"
    bits: tuple[int, ...] = ()
    bottleneck: tuple[float, ...] = ()
    image_codes: tuple[str, ...] = IMAGE_CODES
    energy_mj: float | None = None
    formats: tuple[str, ...] = ("f32",)
    time_here: bool = False
    executor: str = "processes"
    workers: int = 2

    def __post_init__(self) -> None:
        least_of = {
            "K": 1, "N": 1, "seed": 0, "budget": 1, "workers": 1, "branch_steps": 0,
            "finetune_steps": 0,
        }  # fmt: skip
        for name, least in least_of.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}: it must be at least {least}")
        sized(self.image_size)
        chosen: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
            ("forks", (self.forks,), FORKS),
            ("kind of channels", (self.channels,), get_args(Channels)),
            ("way to resize", (self.resize,), get_args(Resize)),
            ("measure", (self.measure,), MEASURES),
            ("distillation", (self.distillation,), DISTILLATION),
            ("executor", (self.executor,), EXECUTORS),
            ("method", self.methods, METHODS),
            ("technique", self.techniques, TECHNIQUE_NAMES),
            ("number format", self.formats, NUMBER_FORMATS),
        )
        for kind, values, known in chosen:
            for value in values:
                if value not in known:
                    raise unknown(kind, value, known)
        if not (math.isfinite(self.max_loss) and self.max_loss >= 0):
            raise ConfigError(f"max-loss is {self.max_loss}: it must be 0 or more points")
        if not (math.isfinite(self.max_latency_ms) and self.max_latency_ms > 0):
            raise ConfigError(f"max-latency-ms is {self.max_latency_ms}: it must be finite and above 0")
        if self.distillation == "branch" and (self.exits != "none" or self.bits or self.bottleneck):
            raise ConfigError(
                "distillation is branch, with exits, bits or a bottleneck: those are judged alone, use block"
            )
        if self.distillation == "branch" and self.other_formats:
            raise ConfigError("distillation is branch, with number formats: those are judged alone, use block")
        if wrong := [width for width in self.bits if not 1 <= width <= 16]:
            raise ConfigError(f"bits is {wrong[0]}: it must be within 1..16; plain numbers are always a choice")
        if wrong_share := [share for share in self.bottleneck if not 0 < share < 1]:
            raise ConfigError(f"bottleneck is {wrong_share[0]}: it must be a share of the channels, within 0..1")
        for text in self.image_codes:
            image_code(text)
        for text in self.outputs:
            if text.partition("=")[2] not in get_args(OutputKind):
                kinds = ", ".join(get_args(OutputKind))
                raise ConfigError(f"outputs has {text!r}: it must be NAME=KIND, with a kind of {kinds}")
        if self.exits != "none" and (self.metric is not None or self.outputs or self.data.startswith("images:")):
            raise ConfigError("exits answer with classes: leave --exits out where another task is judged")
        if self.energy_mj is not None and not self.energy_mj > 0:
            raise ConfigError(f"energy-mj is {self.energy_mj}: it must be above 0")
        if self.rtt_ms is not None and not (math.isfinite(self.rtt_ms) and self.rtt_ms >= 0):
            raise ConfigError(f"rtt-ms is {self.rtt_ms}: it must be 0 or more")

    @property
    def rule(self) -> PictureRule:
        """How a picture becomes the network's pixels."""
        return PictureRule(channels=self.channels, resize=self.resize)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the network takes."""
        return (self.rule.count, *sized(self.image_size))

    @property
    def other_formats(self) -> tuple[str, ...]:
        """Number formats beside f32, which always is one."""
        return tuple(dict.fromkeys(name for name in self.formats if name != "f32"))

    @property
    def offered_codes(self) -> tuple[str, ...]:
        """Codes of the picture that the search may choose: none that would make it no smaller than it is."""
        if self.distillation == "branch":
            return ()
        return tuple(text for text in self.image_codes if image_code(text).side < min(self.input_shape[1:]))


def encode_config(config: SearchConfig) -> bytes:
    """The config as JSON."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n"


def decode_config(data: bytes, origin: str) -> SearchConfig:
    """Read a config from JSON; unknown keys are errors.

    Raises
    ------
    FormatError : not JSON or not a config.
    """
    try:
        return msgspec.json.decode(data, type=SearchConfig)
    except (msgspec.MsgspecError, ConfigError, UnicodeDecodeError) as error:
        raise FormatError(f"{origin} is not the config of a search: {error}") from error


def differences(one: SearchConfig, other: SearchConfig) -> dict[str, tuple[Any, Any]]:
    """Fields in which two configs differ."""
    return {
        name: (getattr(one, name), getattr(other, name))
        for name in SearchConfig.__struct_fields__
        if getattr(one, name) != getattr(other, name)
    }
