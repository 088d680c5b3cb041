"""Compression techniques, and cutting networks apart. `TECHNIQUES` holds every technique by name."""

from modeltree.errors import unknown
from transforms.compose import compose
from transforms.graph.lifting import export
from transforms.graph.network import Network, Unit, analyse
from transforms.graph.running import node_values, values_at
from transforms.techniques.fire import Fire
from transforms.techniques.gap import GlobalAveragePooling
from transforms.techniques.heads import HeadPruning
from transforms.techniques.inner import InnerPruning
from transforms.techniques.ksvd import KSVD
from transforms.techniques.low_rank import LowRank
from transforms.techniques.mobilenet import MobileNet
from transforms.techniques.mobilenet_v2 import MobileNetV2
from transforms.techniques.prune import FilterPruning
from transforms.techniques.skip import Skipping
from transforms.techniques.svd import SVD
from transforms.techniques.technique import Technique, Variant
from transforms.techniques.tucker import Tucker2

TECHNIQUES: dict[str, Technique] = {
    technique.name: technique
    for technique in (
        SVD(), KSVD(), GlobalAveragePooling(), MobileNet(), MobileNetV2(), Fire(), FilterPruning(), Tucker2(),
        LowRank(), InnerPruning(), HeadPruning(), Skipping(),
    )
}  # fmt: skip


def technique(name: str) -> Technique:
    """The technique of that name; an unknown one lists the known."""
    if name not in TECHNIQUES:
        raise unknown("technique", name, TECHNIQUES)
    return TECHNIQUES[name]


__all__ = [
    "TECHNIQUES",
    "Network",
    "Technique",
    "Unit",
    "Variant",
    "analyse",
    "compose",
    "export",
    "node_values",
    "technique",
    "values_at",
]
