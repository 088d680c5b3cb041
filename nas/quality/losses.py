"""What a student is trained on, by the kind of output: the base network's answer, as its kind is judged."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from modeltree.outputs import Output

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of a student's and the base network's answers, (n, ...) as they leave the network."""


def distillation_loss(outputs: Sequence[Output], temperature: float) -> Loss:
    """The loss for these outputs, each counting alike; none stands for one vector of classes."""
    if not outputs:
        return lambda student, teacher: divergence(student, teacher, temperature)

    def loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        given, wanted, at, parts = student.flatten(1), teacher.flatten(1), 0, []
        for output in outputs:
            part = slice(at, at + output.size)
            one, other = (x[:, part].reshape(-1, *output.shape) for x in (given, wanted))
            parts.append(_one(output, one, other, temperature))
            at += output.size
        return torch.stack(parts).mean()

    return loss


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Between softened logits, (n, classes) [Hinton 2015]."""
    target = torch.softmax(teacher / temperature, dim=1)
    logs = torch.log_softmax(student / temperature, dim=1)
    return nn.functional.kl_div(logs, target, reduction="batchmean") * temperature**2


def _one(output: Output, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    if output.kind == "classes":
        width = output.shape[-1]
        return divergence(student.reshape(-1, width), teacher.reshape(-1, width), temperature)
    if output.kind == "pixels" and output.shape[0] > 1:
        rows, wanted = (x.movedim(1, -1).reshape(-1, output.shape[0]) for x in (student, teacher))
        return divergence(rows, wanted, temperature)
    if output.kind == "embedding":
        return (1.0 - torch.cosine_similarity(student, teacher, dim=-1)).mean()
    return (student - teacher).square().mean() / teacher.var().clamp_min(1e-12)
