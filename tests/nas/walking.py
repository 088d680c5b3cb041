"""A tree walked with its exported blocks and the real codec, for many images at once."""

import numpy as np
import torch

from compile.program_file import read_program
from runtime.selection.early_exit import entropies_nats
from runtime.wire.frames import decode, encode


def blocks_of(folder):
    known = {}

    def run(name, x):
        if name not in known:
            known[name] = read_program(folder / "blocks" / f"{name}.pt2").module()
        with torch.no_grad():
            return known[name](x)

    return run


def walked(tree, run, leaf, images):
    """(logits of the samples that come to a leaf and end there, which those are), by the blocks and the real codec."""
    x, here = images, np.ones(len(images), dtype=bool)
    for node in tree.path(leaf.id):
        parent = node.parent
        sure = None if parent is None else tree.confident(parent)
        if sure is not None:
            logits = run(sure.block, x)
            leaves = entropies_nats(logits.numpy()) <= sure.fork.entropy
            if node.id == sure.id:
                return logits, here & leaves
            here &= ~leaves
        x = run(node.block, x) if node.block else x
    if leaf.handover is not None:
        if leaf.handover.place and leaf.handover.bits < 32:
            one = (1, *leaf.handover.shape)
            x = torch.from_numpy(
                np.concatenate([decode(encode(i[None].numpy(), leaf.handover.bits), shape=one) for i in x])
            )
        x = run(leaf.handover.block, x)
    return x, here
