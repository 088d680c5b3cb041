"""Resizing and averaging of unlike windows: linear along each axis, so torch itself gives the matrices."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from compile.graph.reading.products import along
from compile.graph.reading.reader import Call, Reader, View, operator
from compile.graph.stages import Pool, Value

aten = torch.ops.aten


@operator(
    aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default, aten._upsample_nearest_exact2d.default,
    aten._upsample_nearest_exact2d.vec, aten.upsample_nearest1d.vec, aten.upsample_nearest1d.default, passed_on=True,
)  # fmt: skip
def nearest(reader: Reader, call: Call) -> View:
    """Numbers again, wherever torch takes them from."""
    node = call.node
    view = reader.view(node.args[0])
    if view.table is not None and (view.table < 0).any():
        view = reader.view(reader.value(node.args[0]))
    places = torch.from_numpy(view.places().astype(np.float64))
    with torch.no_grad():
        table = node.target(places, *node.args[1:], **node.kwargs).numpy().astype(np.int64)  # type: ignore[operator]
    return View(parts=view.parts, table=table, shape=table.shape, dtype=view.dtype, fill=view.fill)


@operator(
    aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec, aten._upsample_bilinear2d_aa.default,
    aten._upsample_bicubic2d_aa.default, aten.upsample_bilinear2d.default, aten.upsample_bicubic2d.default,
    aten._upsample_bilinear2d_aa.vec, aten._upsample_bicubic2d_aa.vec,
)  # fmt: skip
def resized(
    reader: Reader, call: Call, input: Any = None, x: Any = None, output_size: Any = None,
    align_corners: bool = False, scale_factors: Any = None, scales_h: Any = None, scales_w: Any = None,
) -> Any:  # fmt: skip
    """Bilinear and bicubic, antialiased or not."""
    name = str(call.node.target).removeprefix("aten.").partition(".")[0]
    plain = getattr(aten, name).default
    source = input if input is not None else x
    shape = reader.shape(source)
    factors = scale_factors or (scales_h, scales_w)

    def matrix(axis: int) -> np.ndarray:
        inside, outside = shape[axis], call.shape[axis]
        found = plain(torch.eye(inside)[None, None], [outside, inside], align_corners, factors[axis - 2], None)
        return np.ascontiguousarray(found[0, 0].numpy())

    return _both(reader, source, matrix)


@operator(aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default)
def adaptive_avg_pool2d(reader: Reader, call: Call, x: Any, output_size: Any) -> Any:
    """Windows that are alike as a pool; else a mean of so many rows and columns each."""
    shape = reader.shape(x)
    if len(shape) != 4:
        raise call.refused("works on one image without a batch", "keep the batch in front")
    if shape[2] % call.shape[2] == 0 and shape[3] % call.shape[3] == 0:
        window = (shape[2] // call.shape[2], shape[3] // call.shape[3])
        return reader.add(
            Pool(x=reader.value(x), out=reader.new(call.shape), kind="avg", kernel=window, stride=window)
        )  # fmt: skip

    def matrix(axis: int) -> np.ndarray:
        inside, outside = shape[axis], call.shape[axis]
        found = aten.adaptive_avg_pool2d(torch.eye(inside)[None, None], [outside, inside])
        return np.ascontiguousarray(found[0, 0].numpy())

    return _both(reader, x, matrix)


def _both(reader: Reader, x: Any, matrix: Callable[[int], np.ndarray]) -> Value | View:
    found = x
    for axis in (2, 3):
        factors = matrix(axis)
        if factors.shape[0] != factors.shape[1] or not np.array_equal(factors, np.eye(len(factors))):
            found = along(reader, found, factors, axis)
    return reader.view(found) if found is x else found
