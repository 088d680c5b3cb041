"""Every operator that the compiler accepts, at several shapes and arguments: one small function a case.

Cases of a group are compiled together, as one block that hands all their results on one after the other.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from accepted_shapes import MOVED, REST, table
from torch import nn

Function = Callable[..., torch.Tensor]
SHAPE = (6, 5, 7)


INPUTS: dict[str, Function] = {
    "map": lambda c, x: c,
    "input": lambda c, x: x,
    "tokens": lambda c, x: c.flatten(2).transpose(1, 2),
    "features": lambda c, x: c[:, :, 1, 2],
    "five axes": lambda c, x: c.reshape(-1, 2, 3, 5, 7),
}
"""What an operator is tried on: a map in blocks of channels, the block's input, row-major tensors of several ranks."""

_UNARY = {
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "neg": torch.neg,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "leaky": lambda x: F.leaky_relu(x, 0.3),
    "elu": F.elu,
    "elu 0.5": lambda x: F.elu(x, 0.5),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 2.0),
    "softplus": F.softplus,
    "softplus 2": lambda x: F.softplus(x, 2.0, 1.0),
    "mish": F.mish,
    "abs": torch.abs,
    "exp": torch.exp,
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.4),
    "clamp low": lambda x: x.clamp(min=0.1),
    "clamp high": lambda x: x.clamp(max=0.1),
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "fourth": lambda x: x**4,
    "log": lambda x: (x.abs() + 0.1).log(),
    "sqrt": lambda x: (x.abs() + 0.1).sqrt(),
    "rsqrt": lambda x: (x.abs() + 0.1).rsqrt(),
    "reciprocal": lambda x: (x.abs() + 0.1).reciprocal(),
    "floor": lambda x: (3 * x).floor(),
    "round": lambda x: (3 * x).round(),
    "sign": torch.sign,
    "logsigmoid": F.logsigmoid,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "hardshrink": F.hardshrink,
    "threshold": lambda x: F.threshold(x, 0.1, 20.0),
}
_RARE = {
    "expm1": torch.expm1,
    "log1p": lambda x: x.abs().log1p(),
    "log2": lambda x: (x.abs() + 0.1).log2(),
    "log10": lambda x: (x.abs() + 0.1).log10(),
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": lambda x: (x / 3).tan(),
    "asin": lambda x: x.tanh().asin(),
    "acos": lambda x: x.tanh().acos(),
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "asinh": torch.asinh,
    "acosh": lambda x: (x.abs() + 1.5).acosh(),
    "atanh": lambda x: (x.tanh() / 2).atanh(),
    "erf": torch.erf,
    "ceil": lambda x: (3 * x).ceil(),
    "trunc": lambda x: (3 * x).trunc(),
    "isinf": lambda x: (x / 0.0).isinf(),
    "isnan": lambda x: x.log().isnan(),
    "NaN is not itself": lambda x: x.log() != x.log(),
    "isfinite": lambda x: (1 / x.round()).isfinite(),
    "nan_to_num": lambda x: (x.log() / x.round()).nan_to_num(3.0, 4.0, -5.0),
    "NaN as truth": lambda x: x.log().bool(),
    "largest is NaN": lambda x: x.log().amax(1).nan_to_num(7.0),
    "place of NaN": lambda x: x.log().argmax(1),
    "NaN sorted": lambda x: x.log().sort(-1)[0].nan_to_num(7.0),
    "both": lambda x: (x > 0) * (x < 1),
    "either": lambda x: (x > 0) + (x < -1),
    "larger truth": lambda x: torch.maximum(x > 0, x < -1),
    "smaller truth": lambda x: torch.minimum(x > 0, x < 1),
    "truths sorted": lambda x: (x > 0).sort(-1)[0],
    "not": lambda x: torch.logical_not(x > 0),
    "bitwise not": lambda x: ~(x > 0),
    "int not": lambda x: ~(5 * x).int().long(),
    "half": lambda x: x.half().float(),
    "small half": lambda x: (x * 1e-6).half().float() * 1e6,
    "large half": lambda x: (x * 1e4).half().float(),
    "bfloat16": lambda x: x.bfloat16().float(),
    "to int": lambda x: (9 * x).long(),
    "to bool": lambda x: x.bool(),
    "clamp int": lambda x: (9 * x).long().clamp(-3, 4),
    "frac": torch.frac,
    "logit": lambda x: torch.sigmoid(x).logit(),
}

_THROUGH_NAN = {
    **{name: _UNARY[name] for name in (
        "relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "gelu", "gelu tanh", "leaky", "elu",
        "selu", "softplus", "mish", "abs", "exp", "hardtanh", "clamp low", "clamp high",
    )},
    "maximum": lambda x: torch.maximum(x, x.flip(2)),
    "minimum": lambda x: torch.minimum(x, x.flip(2)),
    "clamp by": lambda x: torch.clamp(x, -x.flip(2).abs(), x.flip(1).abs()),
    "softmax": lambda x: x.softmax(-1),
    "log softmax": lambda x: x.log_softmax(-1),
    "nothing to choose from": lambda x: (x - torch.inf).softmax(-1),
}  # fmt: skip
_POOLS_OF_NAN = {
    "max pool": lambda x: F.max_pool2d(x, 2),
    "max pool at the edge": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max pool of -inf": lambda x: F.max_pool2d(x.abs() - torch.inf, 3, 2, 1).exp(),
    "adaptive max pool": lambda x: F.adaptive_max_pool2d(x, 3),
}
"""Of logarithms, half of which are NaN: what comes out has its NaN where torch's has."""

_OPERANDS: dict[str, Function] = {
    "a number": lambda x: 0.7,
    "itself": lambda x: x.cos(),
    "one an image": lambda x: x.flatten(1).mean(1).view(-1, *(1,) * (x.ndim - 1)),
    "the last axis": lambda x: table(x.shape[-1], seed=1) + 2,
    "the second axis": lambda x: table(x.shape[1], *(1,) * (x.ndim - 2), seed=2) + 2,
}
_BINARY = {
    "add": torch.add,
    "add 0.5": lambda x, y: torch.add(x, y, alpha=0.5),
    "sub": torch.sub,
    "sub 2": lambda x, y: torch.sub(x, y, alpha=2),
    "rsub": lambda x, y: torch.rsub(x, y, alpha=3),
    "other first": lambda x, y: y - x,
    "mul": torch.mul,
    "div": lambda x, y: torch.div(x, y * y + 0.3),
    "div other": lambda x, y: y / (x * x + 0.3),
}
_TWO = {
    "max": torch.maximum,
    "min": torch.minimum,
    "floor div": lambda x, y: torch.div(3 * x, y * y + 0.3, rounding_mode="floor"),
    "trunc div": lambda x, y: torch.div(3 * x, y * y + 0.3, rounding_mode="trunc"),
    "fmod": lambda x, y: torch.fmod(3 * x, y * y + 0.3),
    "remainder": lambda x, y: torch.remainder(3 * x, -y * y - 0.3),
    "pow": lambda x, y: torch.pow(x.abs() + 0.1, y),
    "scalar pow": lambda x, y: torch.pow(1.7, x),
    "atan2": torch.atan2,
    "eq": lambda x, y: x.round() == y.round(),
    "ne": lambda x, y: x.round() != y.round(),
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "lt 0": lambda x, y: x < 0.1,
    "and": lambda x, y: (x > 0) & (y > 0),
    "or": lambda x, y: (x > 0) | (y > 0),
    "xor": lambda x, y: (x > 0) ^ (y > 0),
    "logical and": lambda x, y: torch.logical_and(x > 0, y > 0),
    "logical or": lambda x, y: torch.logical_or(x > 0, y > 0),
    "logical xor": lambda x, y: torch.logical_xor(x > 0, y > 0),
    "where": lambda x, y: torch.where(x > y, x, y),
    "where a number": lambda x, y: torch.where(x > 0, x, 3.0),
    "masked": lambda x, y: x.masked_fill(y > 0, -2.0),
    "clamp by": lambda x, y: torch.clamp(x, -y.abs(), y.abs()),
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    "int add": lambda x, y: (9 * x).long() + 2,
    "int div": lambda x, y: torch.div((9 * x).long(), 2, rounding_mode="floor"),
    "int remainder": lambda x, y: torch.remainder((9 * x).long(), 4),
    "int and": lambda x, y: (9 * x).long() & 3,
    "int times float": lambda x, y: (9 * x).long() * y,
    "addcmul": lambda x, y: torch.addcmul(x, x, y, value=0.3),
}

_REDUCTIONS = {
    "sum": torch.sum,
    "mean": torch.mean,
    "amax": torch.amax,
    "amin": torch.amin,
    "logsumexp": torch.logsumexp,
    "norm": lambda x, d: torch.linalg.vector_norm(x, dim=d),
    "norm 1": lambda x, d: torch.linalg.vector_norm(x, 1, dim=d),
    "norm inf": lambda x, d: torch.linalg.vector_norm(x, float("inf"), dim=d),
    "var": lambda x, d: torch.var(x, d),
    "population var": lambda x, d: torch.var(x, d, correction=0),
    "std": lambda x, d: torch.std(x, d),
    "any": lambda x, d: torch.any(x > 1, d[0]),
    "all": lambda x, d: torch.all(x > -1, d[0]),
    "count": lambda x, d: (x > 0).sum(d),
    "kept": lambda x, d: x.sum(d, keepdim=True) * x,
}
_AXES = {"channels": (1,), "rows": (2,), "last": (-1,), "the map": (2, 3), "apart": (1, 3), "an image": (1, 2, 3)}
_ONE_AXIS = {
    "max": lambda x, d: x.max(d)[0],
    "min": lambda x, d: x.min(d)[0],
    "where max": lambda x, d: x.max(d)[1],
    "where min": lambda x, d: x.min(d)[1],
    "argmax": lambda x, d: x.argmax(d),
    "argmin": lambda x, d: x.argmin(d),
    "prod": lambda x, d: x.prod(d),
    "cumsum": lambda x, d: x.cumsum(d),
    "cumprod": lambda x, d: x.cumprod(d),
    "softmax": lambda x, d: x.softmax(d),
    "log softmax": lambda x, d: x.log_softmax(d),
    "softmin": lambda x, d: F.softmin(x, d),
    "topk": lambda x, d: x.topk(2, d)[0],
    "where topk": lambda x, d: x.topk(3, d)[1],
    "least": lambda x, d: x.topk(2, d, False)[0],
    "sort": lambda x, d: x.sort(d)[0],
    "argsort": lambda x, d: x.argsort(d, descending=True),
    "flip": lambda x, d: x.flip(d),
    "roll": lambda x, d: x.roll(2, d),
    "chunk": lambda x, d: x.chunk(2, d)[1],
    "normalised": lambda x, d: F.normalize(x, dim=d),
    "one hot": lambda x, d: F.one_hot(x.argmax(d), 9),
}


def groups() -> dict[str, dict[str, tuple[str, Function]]]:
    """Group -> case -> (what it is tried on, function)."""
    found: dict[str, dict[str, tuple[str, Function]]] = {}
    for where in ("map", "tokens", "features"):
        found[f"unary on {where}"] = {name: (where, function) for name, function in _UNARY.items()}
    found["rare"] = {f"{name} on {where}": (where, f) for name, f in _RARE.items() for where in ("map", "tokens")}
    for where in ("map", "tokens", "five axes"):
        found[f"binary on {where}"] = {
            f"{name} with {kind}": (where, lambda x, f=function, o=other: f(x, o(x)))
            for name, function in _BINARY.items()
            for kind, other in _OPERANDS.items()
            if not (kind == "a number" and name in ("rsub", "other first"))
        }
    found["two tensors"] = {
        f"{name} on {where}": (where, lambda x, f=function, o=_OPERANDS[kind]: f(x, o(x)))
        for name, function in _TWO.items()
        for where, kind in (("map", "itself"), ("tokens", "one an image"))
    }
    found["NaN"] = {
        f"{name} on {where}": (where, lambda x, f=function: f(x.log()))
        for where, functions in (("map", _THROUGH_NAN | _POOLS_OF_NAN), ("tokens", _THROUGH_NAN))
        for name, function in functions.items()
        if where == "map" or name in ("relu", "maximum", "minimum", "softmax")
    }
    found["reductions"] = {
        f"{name} over {axes}": ("map", lambda x, f=function, d=dims: f(x, d))
        for name, function in _REDUCTIONS.items()
        for axes, dims in _AXES.items()
    }
    found["one axis"] = {
        f"{name} along {axis}": ("map", lambda x, f=function, d=axis: f(x, d))
        for name, function in _ONE_AXIS.items()
        for axis in (1, 2, 3)
    }
    found["movement"] = {f"{name} of {where}": (where, f) for name, f in MOVED.items() for where in ("map", "input")}
    found["the rest"] = {name: ("map", function) for name, function in REST.items()}
    return found


class Together(nn.Module):
    """A convolution, and the results of many functions of what it makes, as one row of numbers an image."""

    def __init__(self, cases: dict[str, tuple[str, Function]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.cases = nn.Conv2d(SHAPE[0], SHAPE[0], 1), cases

    def results(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """By case, (images, numbers)."""
        made = self.stem(x)
        return {
            name: function(INPUTS[where](made, x)).reshape(x.shape[0], -1).float()
            for name, (where, function) in self.cases.items()
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(list(self.results(x).values()), 1)
