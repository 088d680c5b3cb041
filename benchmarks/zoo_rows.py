"""What the zoo's steps leave: its networks, and a JSON file a part of a step."""

from pathlib import Path

import msgspec

from modeltree.files import write_bytes

NETWORKS = {
    **{name: f"torchvision:{name}" for name in (
        "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0",
        "squeezenet1_1", "shufflenet_v2_x1_0", "densenet121", "googlenet", "inception_v3", "regnet_y_400mf",
        "mnasnet1_0", "convnext_tiny", "vgg16_bn", "alexnet", "vit_b_16", "swin_t",
    )},
    **{name: f"timm:{name}" for name in (
        "efficientnet_lite0", "levit_128s", "edgenext_small", "efficientformer_l1", "mobilevit_s", "ghostnet_100",
        "repvgg_a0", "mobileone_s0", "hrnet_w18_small", "dla34", "resnest14d",
    )},
    "deit_tiny": "timm:deit_tiny_patch16_224", "tiny_vit_5m": "timm:tiny_vit_5m_224",
}  # fmt: skip
TRANSFORMERS = (
    "vit_b_16", "swin_t", "deit_tiny", "levit_128s", "edgenext_small", "efficientformer_l1", "mobilevit_s",
    "tiny_vit_5m",
)  # fmt: skip
"""Those with attention; the others count as CNNs."""
SIZES = {"inception_v3": 299}
CLASSES = 1000
CROSS = ("pi4", "pi5", "phone")
DOTS = ("bf16-dot", "int8-dot")
STEPS = {
    "here": ("lift", "host"), "times": ("times",), "cross": CROSS, "two": ("two",), "times2": ("times2",),
    "dots": (*DOTS, "timesdot"),
}  # fmt: skip
"""And the parts that each leaves, a file a part."""
UNASKED = ("here", "times", "cross")
PEERS = ("ort", "openvino")
DOT_PEERS = ("openvino-bf16", "openvino-int8")


class Lifted(msgspec.Struct, kw_only=True):
    """What a network is. bytes : of its parameters and buffers as float32. share : % of MACs."""

    macs: int
    bytes: int
    cuts: int
    share: float


class Compiled(msgspec.Struct, kw_only=True):
    """One library. seconds : of processor, for compiling alone. peak_bytes : of the process, torch and network in it.

    off : root mean square of the difference to torch over that of torch's answer. checked : what was run for it, the
        library or its twin. kernels : how many there are of each name.
    """

    seconds: float
    peak_bytes: int
    library_bytes: int
    weight_bytes: int
    workspace_bytes: int
    kernels: dict[str, int]
    off: float | None = None
    checked: str = ""


class Timed(msgspec.Struct, kw_only=True):
    """Milliseconds a call, a round each: of processor with one thread, by the clock with two.

    off : largest difference to torch over torch's largest number.
    """

    round_ms: dict[str, list[float]]
    off: dict[str, float]
    tuned: bool


class Row(msgspec.Struct, kw_only=True):
    """One step of one network: one of the three, or why there is none."""

    network: str
    step: str
    date: str
    commit: str
    load: float
    lifted: Lifted | None = None
    compiled: Compiled | None = None
    timed: Timed | None = None
    refused: str = ""


def file_name(name: str) -> str:
    """Of a network, for files."""
    return name.replace(":", "-").replace("/", "-")


def row_path(out: Path, name: str, step: str) -> Path:
    """Where the row of a part lies."""
    return out / f"{file_name(name)}-{step}.json"


def write_row(out: Path, row: Row) -> None:
    """As JSON, whole or not at all."""
    write_bytes(row_path(out, row.network, row.step), msgspec.json.format(msgspec.json.encode(row), indent=1) + b"\n")


def read_row(out: Path, name: str, step: str) -> Row | None:
    """None where there is none yet."""
    path = row_path(out, name, step)
    return msgspec.json.decode(path.read_bytes(), type=Row) if path.exists() else None
