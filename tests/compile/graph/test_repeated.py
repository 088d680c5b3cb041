"""Constants whose numbers come again: held once, laid out as they were, and left alone where that gains nothing."""

import numpy as np
import pytest
from stage_programs import array

from compile.graph.repeated import indexed
from compile.graph.stages import Gather, Map, Program, Step, Value

HEADS, TABLE, TOKENS = 6, 90, 64


def program_with(operand: np.ndarray) -> Program:
    x = Value("input", (1, *operand.shape))
    out = Value("sum", x.shape)
    return Program(input=x, result=out, stages=(Map(x=x, out=out, steps=(Step(op="add", operand=operand),)),))


def laid_out(gather: Gather) -> np.ndarray:
    (table,) = gather.parts
    assert isinstance(table, np.ndarray)
    return table.reshape(-1)[gather.table]


def biases(seed: int = 0) -> np.ndarray:
    places = np.random.default_rng(1).integers(0, TABLE, (TOKENS, TOKENS))
    return array(HEADS, TABLE, seed=seed)[:, places]


def test_a_constant_read_by_an_index_is_held_as_the_table_it_was():
    constant = biases()
    gather, using = indexed(program_with(constant)).stages
    assert isinstance(gather, Gather)
    assert using.steps[0].operand == gather.out
    assert gather.parts[0].shape == (HEADS, len(np.unique(constant[0])))
    np.testing.assert_array_equal(laid_out(gather), constant)


def test_constants_read_by_one_index_have_one_index():
    one, other = (indexed(program_with(biases(seed))).stages[0] for seed in (0, 1))
    np.testing.assert_array_equal(one.table, other.table)


def test_equal_nans_and_both_zeros_stay_the_bits_they_were():
    constant = biases()
    values = np.unique(constant)
    constant[constant == values[3]] = np.nan
    constant[constant == values[4]] = 0.0
    constant[constant == values[5]] = -0.0
    gather, _ = indexed(program_with(constant)).stages
    assert laid_out(gather).tobytes() == constant.tobytes()


@pytest.mark.parametrize(
    "constant",
    [
        array(HEADS, TOKENS, TOKENS),
        array(2, 20)[:, np.random.default_rng(2).integers(0, 20, (100, 100))],
        np.ones((6, 8, 8)),
    ],
    ids=["nothing comes again", "the index is as large as a row", "small"],
)
def test_what_gains_nothing_stays(constant):
    program = program_with(constant.astype(np.float32))
    assert indexed(program).stages == program.stages
