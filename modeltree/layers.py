"""What a layer is and what it costs in multiply-accumulates, without torch.

[Wang 2020, eq. 1] writes a layer as x = (l, k, s, p, n): type, kernel, stride, padding, output channels. We add what
eqs. 4-5 and the profiles need: input channels, groups, output height and width, and the share of weights that are not
zero.
"""

import msgspec

OPERATORS = ("conv", "fc", "matmul", "pool", "elementwise", "move")
"""Layer types. `matmul` multiplies two feature maps, as attention does: MACs without weights. `move` is layout only
(flatten, reshape, concatenation, dropout at inference)."""

KINDS = ("conv1x1", "conv3x3", "conv5x5", "conv7x7", "depthwise", "fc", "pool", "elementwise", "move")
"""Operator kinds a profile has a coefficient for: one per kernel size for convolutions, as eqs. 4-5 are used."""

_SQUARE = (1, 3, 5, 7)


class LayerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One layer, eq. 1 and what cost models need beside it. Shapes are per image, channels first.

    op : one of `OPERATORS`.
    kernel, stride, padding : (height, width); (1, 1), (1, 1), (0, 0) where they mean nothing.
    in_channels, out_channels : channels, or features for `fc`.
    out_height, out_width : for `fc` and `matmul` the number of vectors that an image has (tokens), and 1.
    groups : of a convolution.
    density : share of the weights that are not zero (sparse factors of F2), 0 < density <= 1.
    """

    op: str
    in_channels: int
    out_channels: int
    out_height: int = 1
    out_width: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    density: float = 1.0

    @property
    def kind(self) -> str:
        """The operator kind whose profile coefficient applies."""
        if self.op == "matmul" or (self.op == "fc" and self.out_height > 1):
            return "conv1x1"  # the weights serve many vectors, as they serve many pixels there
        if self.op != "conv":
            return self.op
        if self.groups > 1 and self.groups == self.in_channels:
            return "depthwise"
        side = (self.kernel[0] * self.kernel[1]) ** 0.5
        nearest = min(_SQUARE, key=lambda k: abs(k - side))
        return f"conv{nearest}x{nearest}"

    @property
    def dense_macs(self) -> int:
        """MACs when zeros are multiplied like any other weight [Wang 2020, eqs. 4-5]; 0 for what multiplies nothing."""
        if self.op in ("fc", "matmul"):
            return self.in_channels * self.out_channels * self.out_height
        if self.op == "conv":
            taps = self.kernel[0] * self.kernel[1] * (self.in_channels // self.groups)
            return taps * self.out_channels * self.out_height * self.out_width
        return 0

    @property
    def macs(self) -> int:
        """MACs on weights that are not zero."""
        return round(self.dense_macs * self.density)

    @property
    def weight_bytes(self) -> int:
        """Of the dense weights as 32-bit floats, biases left out; 0 for layers without weights."""
        if self.op == "fc":
            return 4 * self.in_channels * self.out_channels
        if self.op == "conv":
            return 4 * self.kernel[0] * self.kernel[1] * (self.in_channels // self.groups) * self.out_channels
        return 0

    @property
    def map_bytes(self) -> int:
        """Of input and output as 32-bit floats, padding left out."""
        rows, columns = self.out_height * self.stride[0], self.out_width * self.stride[1]
        return 4 * (self.in_channels * rows * columns + self.elements)

    @property
    def plain(self) -> bool:
        """Whether a convolution goes over every pixel with all channels."""
        return self.stride == (1, 1) and self.groups == 1

    @property
    def elements(self) -> int:
        """Numbers in the output."""
        return self.out_channels * self.out_height * self.out_width

    @property
    def hyperparameters(self) -> tuple[str, int, int, int, int]:
        """x = (l, k, s, p, n) [Wang 2020, eq. 1], the state a controller reads."""
        return (self.kind, self.kernel[0], self.stride[0], self.padding[0], self.out_channels)
