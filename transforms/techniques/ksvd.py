"""F2: a fully connected layer as a dictionary and sparse codes, by K-SVD [Wang 2020, table II; Aharon 2006]."""

import warnings

import numpy as np
import torch
from sklearn.linear_model import orthogonal_mp_gram
from torch import nn

from transforms.graph.network import Unit
from transforms.techniques.least_squares import bias_of
from transforms.techniques.technique import Samples, Technique, Variant, linear_layer, must_save

_ROUNDS = 4


class SparseLinear(nn.Linear):
    """A linear layer without bias whose weights are zero outside a fixed mask, also while it is trained."""

    mask: torch.Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.register_buffer("mask", torch.ones_like(self.weight))

    @property
    def density(self) -> float:
        """Share of weights that may differ from zero."""
        return float(self.mask.mean())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, in_features) -> (batch, out_features)."""
        return nn.functional.linear(x, self.weight * self.mask)


class KSVD(Technique):
    """m x n weight -> dictionary m x k times codes k x n with few entries a column.

    The rate is k as a share of min(m, n); each column is coded with a quarter of the atoms. The saving is in non-zero
    weights: without sparse kernels the time is that of dense factors, and the cost model says so.
    """

    id, name, rates = "F2", "ksvd", (0.25,)

    def structure(self, unit: Unit, rate: float) -> Variant:
        layer = linear_layer(unit, self.name)
        m, n = layer.weight.shape
        k = max(4, round(rate * min(m, n)))
        must_save(unit, k * (m + n), m * n, self.name)
        return Variant(unit, nn.Sequential(SparseLinear(n, k), nn.Linear(k, m)))

    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        codes, dictionary = variant.core.children()
        k = codes.out_features
        atoms, values = ksvd(unit.op.weight.detach().double().numpy(), k, max(1, k // 4))
        dictionary.weight.copy_(torch.from_numpy(atoms))
        dictionary.bias.copy_(bias_of(unit.op))
        codes.weight.copy_(torch.from_numpy(values))
        codes.mask.copy_(torch.from_numpy(values != 0))


def ksvd(signals: np.ndarray, atoms: int, nonzeros: int) -> tuple[np.ndarray, np.ndarray]:
    """Approximate K-SVD [Rubinstein 2008]: signals (m, n) ~ dictionary (m, atoms) @ codes (atoms, n).

    The dictionary starts from the left singular vectors; orthogonal matching pursuit alternates with one power step an
    atom. Deterministic.
    """
    left = np.linalg.svd(signals, full_matrices=False)[0]
    dictionary = np.ascontiguousarray(left[:, :atoms])
    codes = np.zeros((atoms, signals.shape[1]))
    for _ in range(_ROUNDS):
        gram, products = dictionary.T @ dictionary, dictionary.T @ signals
        codes = _pursued(gram, products, nonzeros)
        residual = signals - dictionary @ codes
        for a in range(atoms):
            users = np.flatnonzero(codes[a])
            if users.size == 0:
                continue
            error = residual[:, users] + np.outer(dictionary[:, a], codes[a, users])
            atom = error @ codes[a, users]
            atom /= max(float(np.linalg.norm(atom)), 1e-12)
            updated = error.T @ atom
            residual[:, users] = error - np.outer(atom, updated)
            dictionary[:, a], codes[a, users] = atom, updated
    return dictionary, codes


def _pursued(gram: np.ndarray, products: np.ndarray, nonzeros: int) -> np.ndarray:
    """Orthogonal matching pursuit. It warns where a signal is reached with fewer atoms, which is what we hope for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Orthogonal matching pursuit ended prematurely", RuntimeWarning)
        return np.asarray(orthogonal_mp_gram(gram, products, n_nonzero_coefs=nonzeros)).reshape(gram.shape[0], -1)
