"""Trees of networks that answer with something else than classes."""

import json

import msgspec
import numpy as np
import pytest
from trees import forked_tree

from modeltree.errors import FormatError
from modeltree.outputs import Output, taken_apart
from modeltree.tree import decode_tree, encode_tree
from modeltree.tree.render import render_text

TREE = forked_tree()
OUTPUTS = (Output(name="mask", shape=(2, 4, 4), kind="pixels"), Output(name="box", shape=(4,)))


def changed(**what):
    return msgspec.structs.replace(TREE, **({"classes": (), "outputs": OUTPUTS, "version": 3} | what))


def test_a_tree_with_outputs_reads_back_and_says_what_it_answers():
    tree = decode_tree(encode_tree(changed(quality="agreement")), "x")
    assert tree.outputs == OUTPUTS
    assert tree.answer_shape == (36,)
    assert "to mask 2x4x4 and box 4, sliced" in render_text(tree)
    assert "% agreement (" in render_text(tree)


def test_a_tree_without_says_nothing_new():
    assert not {"outputs", "quality"} & set(json.loads(encode_tree(TREE)))
    assert TREE.answer_shape == (len(TREE.classes),)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"version": 2}, "has outputs, .*: that begins with version 3"), ({"classes": ("a",)}, "outputs, and classes"),
        ({"outputs": (OUTPUTS[1], OUTPUTS[1])}, "a name of its own"),
        ({"outputs": (Output(name="x", shape=(0, 2)),)}, "sides must be at least 1"),
    ],
)  # fmt: skip
def test_outputs_that_contradict_the_tree_are_refused(what, why):
    tree = json.loads(encode_tree(changed()))
    tree |= json.loads(msgspec.json.encode(what))
    with pytest.raises(FormatError, match=why):
        decode_tree(json.dumps(tree).encode(), "x")


def test_one_output_keeps_its_shape_and_several_share_the_answer_s_memory():
    answer = np.arange(72, dtype=np.float32).reshape(2, 36)
    parts = taken_apart(answer, OUTPUTS)
    assert parts["mask"].shape == (2, 2, 4, 4)
    assert parts["box"].tolist() == [[32, 33, 34, 35], [68, 69, 70, 71]]
    assert np.shares_memory(parts["box"], answer)
    assert taken_apart(answer.reshape(2, 2, 3, 6), [Output(name="m", shape=(2, 3, 6))])["m"].shape == (2, 2, 3, 6)
