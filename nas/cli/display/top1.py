"""`nas run --labels`: how many images are classified as the folder says that they lie in."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modeltree.tree import ModelTree
    from runtime.result import Result


@dataclass(kw_only=True)
class Top1:
    """Counts of what was answered.

    measured : sum of what the search says of each answer's path, in percent; NaN once it does not say.
    """

    tree: "ModelTree"
    images: int = 0
    right: int = 0
    unlabelled: int = 0
    measured: float = 0.0

    def add(self, result: "Result", image: str) -> None:
        """One answer; an image in a folder that is no class counts as having no label."""
        label = Path(image).parent.name
        if self.tree.outputs or label not in self.tree.classes:
            self.unlabelled += 1
            return
        self.images += 1
        self.right += self.tree.classes[int(result.output.argmax())] == label
        leaf = self.tree.nodes[result.nodes[-1]].leaf if result.nodes else None
        self.measured += math.nan if leaf is None or leaf.accuracy_origin != "measured" else leaf.accuracy

    @property
    def numbers(self) -> dict[str, object]:
        """For JSON; percents are null where nothing is known."""
        share = 100 * self.right / self.images if self.images else None
        measured = self.measured / self.images if self.images and math.isfinite(self.measured) else None
        return {
            "top1": share, "right": self.right, "images": self.images, "unlabelled": self.unlabelled,
            "report": measured,
        }  # fmt: skip

    @property
    def text(self) -> str:
        """One line."""
        if self.tree.outputs:
            return "top-1 is not known: the network answers with no classes"
        if not self.images:
            known = ", ".join(self.tree.classes[:5])
            return f"top-1 is not known: no image lies in a folder that is named like a class, such as {known}"
        numbers = self.numbers
        report = "" if numbers["report"] is None else f"; the report says {numbers['report']:.2f} % of these paths"
        without = f"; {self.unlabelled} without a label" if self.unlabelled else ""
        return f"top-1 {numbers['top1']:.2f} % of {self.images} images{report}{without}"
