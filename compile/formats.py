"""How a convolution's numbers are held and multiplied.

A batch of one is bound by how fast weights come from memory, so fewer bytes are less time: `bf16` and `int8` weights
are widened in registers and multiplied as float32. Where the target has the instructions, `bf16-dot` and `int8-dot`
multiply 2 or 4 neighbouring channels at once; they read feature maps in the same narrow type.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.targets import Target
from compile.vectors import lanes_at, widened
from modeltree.errors import ConfigError, unknown

_INT8_MOST = 127

_BF16_DOT = """
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)
define linkonce_odr <16 x float> @nas_dot(<16 x float> %sums, <16 x i32> %x, <16 x i32> %w) alwaysinline {
  %xs = bitcast <16 x i32> %x to <32 x bfloat>
  %ws = bitcast <16 x i32> %w to <32 x bfloat>
  %r = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float> %sums, <32 x bfloat> %xs, <32 x bfloat> %ws)
  ret <16 x float> %r
}
"""
_VNNI = """
declare <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, <64 x i8>, <64 x i8>)
define linkonce_odr <16 x i32> @nas_dot(<16 x i32> %sums, <16 x i32> %x, <16 x i32> %w) alwaysinline {
  %xs = bitcast <16 x i32> %x to <64 x i8>
  %ws = bitcast <16 x i32> %w to <64 x i8>
  %r = call <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32> %sums, <64 x i8> %xs, <64 x i8> %ws)
  ret <16 x i32> %r
}
"""
_SDOT = """
declare <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8(<4 x i32>, <16 x i8>, <16 x i8>)
define linkonce_odr <4 x i32> @nas_dot(<4 x i32> %sums, <4 x i32> %x, <4 x i32> %w) alwaysinline {
  %xs = bitcast <4 x i32> %x to <16 x i8>
  %ws = bitcast <4 x i32> %w to <16 x i8>
  %r = call <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8(<4 x i32> %sums, <16 x i8> %ws, <16 x i8> %xs)
  ret <4 x i32> %r
}
"""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to hold weights and feature maps.

    weight : type of a weight. maps : type of feature maps in memory. reads : type a convolution reads them in.
    scaled : weights are codes with one factor an output channel. group : channels that one instruction multiplies.
    levels : largest code of a feature map, 0 where maps are not codes. offset : code of zero where maps have a sign.
    llvm : the instruction, as a function `nas_dot` of LLVM.
    """

    name: str
    weight: str = "float32"
    maps: str = "float32"
    reads: str = "float32"
    scaled: bool = False
    group: int = 1
    levels: int = 0
    offset: int = 0
    llvm: str = ""

    @property
    def sums(self) -> str:
        """Type that products are added up in."""
        return "int32" if self.levels else "float32"

    @property
    def load_cost(self) -> float:
        """Of a vector of weights, in plain loads."""
        return {"float32": 1.0, "uint16": 2.0, "int8": 3.0}[self.weight] if self.group == 1 else 1.0

    def packed(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (out blocks, ..., in block, lanes) as they lie in memory; the factors of output slots, (slots,).

        With a group, (in block, lanes) becomes (in block / group, lanes, group).
        """
        codes, scale = self._coded(weight)
        if self.group > 1:
            *front, block, lanes = codes.shape
            codes = codes.reshape(*front, block // self.group, self.group, lanes)
            codes = np.ascontiguousarray(np.swapaxes(codes, -1, -2))
        return codes, scale

    def _coded(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ones = np.ones(weight.shape[0] * weight.shape[-1], np.float32)
        if self.weight == "float32":
            return weight, ones
        if self.weight == "uint16":
            return bf16(weight), ones
        most = np.abs(weight).max(axis=tuple(range(1, weight.ndim - 1)))
        scale = np.where(most > 0, most / _INT8_MOST, 1).astype(np.float32)
        shape = (weight.shape[0], *(1,) * (weight.ndim - 2), weight.shape[-1])
        return np.rint(weight / scale.reshape(shape)).astype(np.int8), scale.reshape(-1)

    def load(self, buffer: Any, start: Any, lanes: int) -> Any:
        """A vector of weights: float32, or the narrow numbers of a whole group as int32."""
        if self.group > 1:
            return T.reinterpret(f"int32x{lanes}", buffer[lanes_at(start, lanes * self.group)])
        vector = buffer[lanes_at(start, lanes)]
        if self.weight == "int8":
            suffix = f"x{lanes}" if lanes > 1 else ""
            return T.cast(T.cast(vector, f"int32{suffix}"), f"float32{suffix}")
        return widened(vector, self.weight, lanes)

    def spread(self, x: Any, at: list[Any], lanes: int) -> Any:
        """The number (or the group of numbers) of a feature map at `at`, in every lane."""
        if self.group == 1:
            number = widened(x[tuple(at)], self.reads, 1)
            return tirx.Broadcast(number, lanes) if lanes > 1 else number
        *front, last = at
        return tirx.Broadcast(T.reinterpret("int32", x[(*front, tirx.Ramp(last, 1, self.group))]), lanes)

    def several(self, x: Any, at: list[Any], steps: int) -> Any:
        """The numbers (or groups of numbers, as int32) of `steps` steps, as one vector."""
        *front, first = at
        vector = x[(*front, tirx.Ramp(first, 1, steps * self.group))]
        return vector if self.group == 1 else T.reinterpret(f"int32x{steps}", vector)

    def multiply_add(self, sums: Any, wide: Any, weight: Any, lanes: int) -> Any:
        """Sums with the products of one group added."""
        if self.group == 1:
            return sums + wide * weight
        return tirx.call_extern(f"{self.sums}x{lanes}", "nas_dot", sums, wide, weight)


def bf16(numbers: np.ndarray) -> np.ndarray:
    """Upper halves, rounded to nearest even; of any shape."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


_PLAIN = {
    "f32": Format(name="f32"),
    "bf16": Format(name="bf16", weight="uint16"),
    "int8": Format(name="int8", weight="int8", scaled=True),
}
_DOT = {
    "bf16-dot": (
        "bf16",
        Format(name="bf16-dot", weight="uint16", maps="uint16", reads="uint16", group=2, llvm=_BF16_DOT),
    ),
    "int8-dot": (
        "vnni",
        Format(name="int8-dot", weight="int8", reads="uint8", scaled=True, group=4, levels=255, offset=128, llvm=_VNNI),
    ),
}
_ARM_INT8 = Format(name="int8-dot", weight="int8", reads="int8", scaled=True, group=4, levels=127, llvm=_SDOT)

FORMATS = (*_PLAIN, *_DOT)
"""Names of all formats; those with `-dot` ask for instructions of the target."""


def format_of(name: str, target: Target) -> Format:
    """A format by name, on a target.

    Raises
    ------
    ConfigError : an unknown name, or the target lacks the instructions.
    """
    if name in _PLAIN:
        return _PLAIN[name]
    if name not in _DOT:
        raise unknown("weight format", name, FORMATS)
    if name == "int8-dot" and "sdot" in target.dot:
        return _ARM_INT8
    needed, form = _DOT[name]
    if needed not in target.dot or target.vector_bits != 512:
        raise ConfigError(
            f"target {target.name} has no dot products for {name} (it has {', '.join(target.dot) or 'none'}): "
            f"compile for one that has, or take {name.removesuffix('-dot')}"
        )
    return form
