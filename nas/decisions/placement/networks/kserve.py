"""A plan as a KServe InferenceGraph: a sequence of services of the Open Inference Protocol, one a server's stage."""

import re
from typing import Any

from modeltree.errors import GraphError


def inference_graph(document: dict[str, Any], *, name: str) -> str:
    """YAML for `kubectl apply -f`; `document` is what `nas place --json` prints.

    Every stage becomes an InferenceService of the server's name, which must host the stage's block (its ONNX form, in
    any server of the protocol). What the plan gives the device stays there and is not part of it.

    Raises
    ------
    GraphError : no server has a part in the plan.
    """
    steps: list[str] = []
    for index, stage in enumerate(document["stages"]):
        if stage["host"] == "device":
            continue
        first, last = stage["places"]
        steps.append(
            f"        - serviceName: {_name(stage['host'])}\n"
            f"          name: stage-{index}-places-{first}-to-{last}\n"
            f"          data: {'$request' if not steps else '$response'}\n"
        )
    if not steps:
        raise GraphError("the plan leaves everything on the device: there is nothing to export")
    return (
        "apiVersion: serving.kserve.io/v1alpha1\n"
        "kind: InferenceGraph\n"
        "metadata:\n"
        f"  name: {_name(name)}\n"
        "spec:\n"
        "  nodes:\n"
        "    root:\n"
        "      routerType: Sequence\n"
        "      steps:\n" + "".join(steps)
    )


def _name(text: str) -> str:
    """A DNS label."""
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:63] or "network"
