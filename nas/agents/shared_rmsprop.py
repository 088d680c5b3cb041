"""RMSProp whose parameters and averages several processes share without locks [Li 2023, eqs. 23-24; Mnih et al. 2016].

g <- alpha g + (1 - alpha) d^2,   theta <- theta - eta d / sqrt(g + epsilon)
"""

from collections.abc import Iterable

import torch


class SharedRmsProp:
    """Updates `parameters`, in shared memory or not, from the gradients of a copy of them."""

    def __init__(self, parameters: Iterable[torch.Tensor], *, alpha: float = 0.99, epsilon: float = 1e-5) -> None:
        self.parameters = list(parameters)
        self.averages = [torch.zeros_like(one).share_memory_() for one in self.parameters]
        self.alpha, self.epsilon = alpha, epsilon

    @torch.no_grad()
    def step_(self, gradients: Iterable[torch.Tensor | None], lr: float) -> None:
        """One step down; each gradient has its parameter's shape, of any shape."""
        for parameter, average, gradient in zip(self.parameters, self.averages, gradients, strict=True):
            if gradient is not None:
                average.mul_(self.alpha).addcmul_(gradient, gradient, value=1 - self.alpha)
                parameter.addcdiv_(gradient, (average + self.epsilon).sqrt(), value=-lr)
