"""How a convolution's weights are held: as they are, or in fewer bytes and widened in registers.

A batch of one is bound by how fast weights come from memory, so fewer bytes are less time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.schedules.emit import lanes_at

_INT8_MOST = 127


@dataclass(frozen=True)
class WeightFormat:
    """dtype : as TVM holds it. scaled : one factor an output channel. load_cost : in plain loads, for `_cost`."""

    name: str
    dtype: str
    scaled: bool = False
    load_cost: float = 1.0

    def packed(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (out blocks, ..., lanes) in this format, and the factor of every output slot."""
        ones = np.ones(weight.shape[0] * weight.shape[-1], np.float32)
        if self.name == "f32":
            return weight, ones
        if self.name == "bf16":
            return _bf16(weight), ones
        most = np.abs(weight).max(axis=tuple(range(1, weight.ndim - 1)))
        scale = np.where(most > 0, most / _INT8_MOST, 1).astype(np.float32)
        shape = (weight.shape[0], *(1,) * (weight.ndim - 2), weight.shape[-1])
        codes = np.rint(weight / scale.reshape(shape)).astype(np.int8)
        return codes, scale.reshape(-1)

    def load(self, buffer: Any, start: Any, lanes: int) -> Any:
        """`lanes` weights as float32."""
        vector = buffer[lanes_at(start, lanes)]
        suffix = f"x{lanes}" if lanes > 1 else ""
        if self.name == "f32":
            return vector
        if self.name == "bf16":
            shift = T.uint32(16)
            wide = T.cast(vector, f"uint32{suffix}") << (tirx.Broadcast(shift, lanes) if lanes > 1 else shift)
            return T.reinterpret(f"float32{suffix}", wide)
        return T.cast(T.cast(vector, f"int32{suffix}"), f"float32{suffix}")


def _bf16(weight: np.ndarray) -> np.ndarray:
    """Upper halves, rounded to nearest even."""
    bits = np.ascontiguousarray(weight, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


FORMATS = {
    form.name: form
    for form in (
        WeightFormat("f32", "float32"),
        WeightFormat("bf16", "uint16", load_cost=2.0),
        WeightFormat("int8", "int8", scaled=True, load_cost=3.0),
    )
}
