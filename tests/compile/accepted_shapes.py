"""Operators that move numbers or change shapes, and those of whole layers, on maps of 6 channels, 5 rows, 7 columns."""

import math

import torch
import torch.nn.functional as F


def table(*shape: int, seed: int = 0) -> torch.Tensor:
    """A constant, of numbers that are as good as random."""
    return 1.5 * torch.sin(torch.arange(float(math.prod(shape))) * 12.9898 + 1 + seed).reshape(shape)


MOVED = {
    "permute": lambda x: x.permute(0, 3, 1, 2),
    "transpose": lambda x: x.transpose(1, 2),
    "slice": lambda x: x[:, 1:5:2, 1:],
    "select": lambda x: x[:, 2],
    "narrow": lambda x: x.narrow(3, 2, 3),
    "expand": lambda x: x[:, :1].expand(-1, 4, -1, -1),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "unsqueeze": lambda x: x.unsqueeze(2),
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "pad with 3": lambda x: F.pad(x, (1, 0), value=3.0),
    "crop": lambda x: F.pad(x, (-1, 2)),
    "reflect": lambda x: F.pad(x, (2, 1, 1, 2), mode="reflect"),
    "replicate": lambda x: F.pad(x, (2, 1, 1, 2), mode="replicate"),
    "circular": lambda x: F.pad(x, (2, 1, 1, 2), mode="circular"),
    "padded twice": lambda x: F.pad(F.pad(x, (1, 1), value=2.0), (1, 1)),
    "roll twice": lambda x: x.roll((1, -2), (2, 3)),
    "unfold": lambda x: F.unfold(x, 3),
    "unfold 2": lambda x: F.unfold(x, (2, 3), 1, 1, 2),
    "windows": lambda x: x.unfold(3, 3, 2),
    "diagonal": lambda x: x.diagonal(0, 2, 3),
    "stack": lambda x: torch.stack([x, 2 * x], 2),
    "cat": lambda x: torch.cat([x, x.relu(), x], 1),
    "cat rows": lambda x: torch.cat([x, x.relu()], 2),
    "cat a constant": lambda x: torch.cat([x, torch.ones(1, 6, 1, 7).expand(x.shape[0], -1, -1, -1)], 2),
    "split": lambda x: x.split([1, 5], 1)[1],
    "unbind": lambda x: x.unbind(1)[3],
    "index": lambda x: x[:, [3, 0, 0]],
    "index two": lambda x: x[:, :, [0, 2], [1, 6]],
    "index select": lambda x: x.index_select(2, torch.tensor([4, 1])),
    "tril": torch.tril,
    "triu": lambda x: x.triu(1),
    "shuffle": lambda x: F.pixel_shuffle(F.pad(x, (0, 0, 0, 0, 0, 2)), 2),
    "unshuffle": lambda x: F.pixel_unshuffle(x[:, :, :4, :6], 2),
    "channel shuffle": lambda x: F.channel_shuffle(x, 3),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "nearest": lambda x: F.interpolate(x, size=(9, 4)),
    "nearest x2": lambda x: F.interpolate(x, scale_factor=2),
    "nearest x1.5": lambda x: F.interpolate(x, scale_factor=1.5),
    "nearest exact": lambda x: F.interpolate(x, size=(9, 4), mode="nearest-exact"),
    "nearest 1d": lambda x: F.interpolate(x.flatten(2), size=20),
}


def _assigned(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, 0] = 0.5
    y[:, 1:3, 2] = x[:, 3:5, 1]
    return y


def _dynamic(x: torch.Tensor) -> torch.Tensor:
    return x.gather(1, x.argsort(1)[:, :2])


REST = {
    "assigned": _assigned,
    "gather": _dynamic,
    "embedding": lambda x: F.embedding(x.argmax(1), table(6, 4)),
    "scatter": lambda x: x.index_fill(1, torch.tensor([1, 4]), 2.5),
    "take": lambda x: table(6, 3)[x.argmax(1)],
    "full": lambda x: torch.full_like(x, 2.0) * x,
    "linspace": lambda x: x + torch.linspace(0, 1, 7),
    "matmul": lambda x: x @ x.transpose(2, 3),
    "matmul a matrix": lambda x: x @ table(7, 19),
    "matmul a vector": lambda x: x @ table(7),
    "a matrix matmul": lambda x: table(4, 5) @ x,
    "matmul broadcast": lambda x: x @ x[:, :1].transpose(2, 3),
    "bmm": lambda x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)),
    "baddbmm": lambda x: torch.baddbmm(x[:, :1, 0, :6], x.flatten(2), x.flatten(2).transpose(1, 2)),
    "linear": lambda x: F.linear(x, table(33, 7), table(33)),
    "linear narrow": lambda x: F.linear(x, table(3, 7)),
    "linear one": lambda x: F.linear(x, table(1, 7), table(1)),
    "mm": lambda x: x[:, :, 0, 0] @ table(6, 4),
    "addmm": lambda x: torch.addmm(table(4), x[:, :, 0, 0], table(6, 4), beta=0.5, alpha=2.0),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "einsum 2": lambda x: torch.einsum("bchw,cd->bdhw", x, table(6, 4)),
    "attention": lambda x: F.scaled_dot_product_attention(x, x.roll(1, 2), x),
    "attention scaled": lambda x: F.scaled_dot_product_attention(x, x, x.roll(1, 2), scale=0.3),
    "attention causal": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "attention masked": lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=table(5, 5)),
    "attention bool": lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.eye(5, dtype=torch.bool)),
    "layer norm": lambda x: F.layer_norm(x, (7,)),
    "layer norm 2": lambda x: F.layer_norm(x, (5, 7), table(5, 7), table(5, 7, seed=1), 0.1),
    "rms norm": lambda x: F.rms_norm(x, (7,), table(7)),
    "group norm": lambda x: F.group_norm(x, 2),
    "group norm 3": lambda x: F.group_norm(x, 3, table(6), table(6, seed=1), 0.1),
    "instance norm": F.instance_norm,
    "instance norm 2": lambda x: F.instance_norm(x, weight=table(6), bias=table(6)),
    "batch norm": lambda x: F.batch_norm(x, table(6), table(6).abs() + 0.5, table(6, seed=1), table(6, seed=2)),
    "batch norm 1d": lambda x: F.batch_norm(x.flatten(2), table(6), table(6).abs() + 0.5),
    "max pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max pool ceil": lambda x: F.max_pool2d(x, 2, ceil_mode=True),
    "max pool dilated": lambda x: F.max_pool2d(x, 2, 1, 1, 2),
    "avg pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg pool without": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "avg pool ceil": lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
    "avg pool ceil padded": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg pool divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "adaptive avg": lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
    "adaptive avg 1": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, (2, 3)),
    "adaptive max 1": lambda x: F.adaptive_max_pool2d(x, 1),
    "lp pool": lambda x: F.lp_pool2d(x, 2, 2),
    "bilinear": lambda x: F.interpolate(x, size=(9, 4), mode="bilinear"),
    "bilinear x2": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear corners": lambda x: F.interpolate(x, size=(9, 4), mode="bilinear", align_corners=True),
    "bicubic": lambda x: F.interpolate(x, size=(9, 4), mode="bicubic"),
    "antialiased": lambda x: F.interpolate(x, size=(3, 4), mode="bilinear", antialias=True),
    "bicubic antialiased": lambda x: F.interpolate(x, size=(3, 4), mode="bicubic", antialias=True),
    "conv": lambda x: F.conv2d(x, table(4, 6, 3, 3), table(4), 2, 1),
    "conv grouped": lambda x: F.conv2d(x, table(4, 3, 3, 3), padding="same", groups=2),
    "conv 1d": lambda x: F.conv1d(x.flatten(2), table(4, 6, 3), stride=2, padding=1),
    "conv transposed": lambda x: F.conv_transpose2d(x, table(6, 4, 3, 3)),
    "conv transposed 2": lambda x: F.conv_transpose2d(
        x, table(6, 2, 3, 2), table(4), (2, 3), (1, 0), (1, 2), 2, (1, 2)
    ),
    "conv transposed 1d": lambda x: F.conv_transpose1d(x.flatten(2), table(6, 4, 3), stride=2),
    "glu": lambda x: F.glu(x, 1),
    "gumbel free": lambda x: F.softmax(x / 0.5, 1),
    "cosine": lambda x: F.cosine_similarity(x, x.roll(1, 3), 1),
    "cross": lambda x: torch.cross(x[:, :3], x[:, 3:], 1),
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "bucket": lambda x: x * (x.shape[2] // 2),
}
