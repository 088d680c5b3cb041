"""Names a user can choose, known without importing what they stand for (so that `nas --help` is quick).

What a method is stands in `METHOD_TABLE` alone; every other list of methods is read off it.
"""

from dataclasses import dataclass

TECHNIQUES = {
    "svd": "F1, a fully connected layer as two thin ones; the rate is the rank's share",
    "ksvd": "F2, a fully connected layer as a dictionary and sparse codes",
    "gap": "F3, global average pooling and one classifier instead of the fully connected layers",
    "mobilenet": "C1, a depthwise and a pointwise convolution",
    "mobilenet_v2": "C2, an inverted residual; the rate is the expansion",
    "fire": "C3, a Fire layer; the rate is the squeezed channels' share",
    "prune": "W1, the insignificant filters removed; the rate is the share kept",
    "tucker2": "T2, a Tucker decomposition over channels; the rate is the rank's share",
    "low_rank": "T3, two thin pointwise layers, the best for the layer's inputs; the rate is the rank's share",
    "inner": "T4, a block (inverted residual, MLP) with fewer channels inside; the rate is the share kept",
    "heads": "T5, attention with fewer heads; the rate is the share kept",
    "skip": "T6, a residual block left out",
}
"""What each technique does, for a reader who has not seen the paper. Said here because `transforms` needs torch."""
TECHNIQUE_NAMES = tuple(TECHNIQUES)
IMAGE_CODES = ("came", "jpeg:90", "jpeg:75", "jpeg:50", "jpeg:75@160", "webp:75", "webp:50")
"""How the picture itself may cross, unless said, where the network takes larger ones; see `modeltree.image_codes`."""
NUMBER_FORMATS = ("f32", "bf16", "int8", "int8-dot")
"""What a block may be computed in; see docs/compiler.md."""
EXECUTORS = ("serial", "processes")


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to run a network, or to search for one.

    name : on the command line and in files. title : what a reader calls it. phrase : the same within a sentence.
    rank : 0 for the simplest. Of methods that are worth the same the simplest wins.
    baseline : it decides nothing, and is always run. offered : `--method` may name it.
    rival : a search that ours is held against.
    trained : it may compress, so its paths are fine-tuned and measured.
    deployable : one would deploy it under this name, so verdicts compare it.
    handed_over : its plan may become the `tree.json` of a run.
    """

    name: str
    title: str
    phrase: str
    rank: int
    baseline: bool = False
    offered: bool = False
    rival: bool = False
    trained: bool = False
    deployable: bool = False
    handed_over: bool = False


ACTIONS = "actions"
"""The base network's exits, cuts and bits as a tree; there where a search has exits or codes."""
PLAIN_TREE = "plain_tree"
"""The model tree without exits and codes, searched beside that with them."""

OPTIMUM = "optimum"
"""The best tree there is by the predictor, found exactly; there where the searched tree falls short of it."""

UNFORKED = "unforked"
"""The best single path, the same for every state of the link; a bound, no method."""

METHOD_TABLE = (
    Method(
        name="device_only", title="All on the device", phrase="device-only", rank=0, baseline=True, deployable=True,
        handed_over=True,
    ),
    Method(
        name="cloud_raw", title="Cloud, raw pixels", phrase="cloud with raw pixels", rank=2, baseline=True,
        deployable=True, handed_over=True,
    ),
    Method(
        name="cloud_jpeg", title="Cloud, as JPEG", phrase="cloud with JPEG", rank=1, baseline=True,
        deployable=True, handed_over=True,
    ),
    Method(
        name="surgery", title="Surgery", phrase="surgery", rank=3, offered=True, deployable=True, handed_over=True,
    ),
    Method(
        name="branch", title="Branch", phrase="the branch", rank=4, offered=True, trained=True, deployable=True,
        handed_over=True,
    ),
    Method(
        name=PLAIN_TREE, title="Tree without exits and codes", phrase="the tree without exits and codes", rank=6,
        trained=True, handed_over=True,
    ),
    Method(
        name="tree", title="Model tree", phrase="the tree", rank=7, offered=True, trained=True, deployable=True,
        handed_over=True,
    ),
    Method(
        name=OPTIMUM, title="Predictor's optimum", phrase="the predictor's optimum", rank=8, trained=True,
        handed_over=True,
    ),
    Method(name=ACTIONS, title="Exit, cut and bits", phrase="exit, cut and bits", rank=5),
    Method(name="random", title="Random search", phrase="random search", rank=9, offered=True, rival=True),
    Method(name="egreedy", title="ε-greedy search", phrase="ε-greedy search", rank=10, offered=True, rival=True),
)  # fmt: skip
"""Every method, in the order of the rows of `summary.json`."""

METHOD_BY_NAME = {method.name: method for method in METHOD_TABLE}
_SIMPLEST_FIRST = sorted(METHOD_TABLE, key=lambda method: method.rank)

FIXED = tuple(method.name for method in METHOD_TABLE if method.baseline)
METHODS = tuple(method.name for method in METHOD_TABLE if method.offered)
"""What `--method` may name."""
TITLES = {method.name: method.title for method in _SIMPLEST_FIRST}
"""What a reader calls each method; the simplest first."""
STRATEGIES = tuple(method.name for method in _SIMPLEST_FIRST if method.deployable)
"""What one would deploy, the simplest first."""
SIMPLER = tuple(method.name for method in _SIMPLEST_FIRST if method.handed_over)
"""Methods whose plans can be handed over, the simplest first: of equals the simplest wins."""
TRAINED = tuple(method.name for method in reversed(_SIMPLEST_FIRST) if method.trained)
"""Methods whose paths are fine-tuned and measured, the richest first."""


def phrase(name: str) -> str:
    """What a method is called within a sentence; a name that we do not know is its own."""
    return METHOD_BY_NAME[name].phrase if name in METHOD_BY_NAME else name
