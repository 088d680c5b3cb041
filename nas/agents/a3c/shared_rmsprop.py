"""RMSProp on arrays that several processes share without locks [Li 2023, eqs. 23-24; Mnih et al. 2016].

g <- alpha g + (1 - alpha) d^2,   theta <- theta - eta d / sqrt(g + epsilon)
"""

import numpy as np


def rmsprop_(
    parameters: np.ndarray, averages: np.ndarray, gradient: np.ndarray, lr: float, *, alpha: float = 0.99,
    epsilon: float = 1e-5,
) -> None:  # fmt: skip
    """One step down; all arrays (numbers,), `averages` 0 before the first."""
    averages *= alpha
    averages += (1 - alpha) * gradient * gradient
    parameters -= lr * gradient / np.sqrt(averages + epsilon)
