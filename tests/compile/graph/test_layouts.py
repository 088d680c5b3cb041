"""Where numbers lie."""

import torch
from operator_cases import Of, cat, conv1, conv3
from stage_programs import fused_from, kinds, placed_from
from torch import nn

from compile.graph.layouts import NO_HALO, Layout, Relayout, blocked, plain
from compile.graph.stages import Concat, Convolution, Value


def relayouts(found):
    return [stage for stage in found.stages if isinstance(stage, Relayout)]


def test_a_layout_knows_its_shape_and_size():
    layout = blocked(Value("x", (2, 10, 5, 6)), 4, (1, 2, 0, 1))
    assert layout.channels == (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -1)
    assert layout.shape(2) == (2, 3, 6, 9, 4)
    assert layout.numbers(2) == 2 * 3 * 6 * 9 * 4


def test_only_what_lies_row_by_row_is_plain():
    assert plain(Value("x", (1, 3, 5, 5))).is_plain
    assert blocked(Value("x", (1, 8)), 4).is_plain
    assert not blocked(Value("x", (1, 8, 2, 1)), 4).is_plain
    assert not blocked(Value("x", (1, 7)), 4).is_plain
    assert not Layout((0, 1), 1, 2, 2, (0, 0, 0, 1)).is_plain
    assert not Layout((1, 0), 1, 1, 1).is_plain


def test_layouts_change_at_the_edges_of_a_block_only():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 1))
    found = placed_from(fused_from(model, (3, 6, 6)))
    assert kinds(found) == ["Relayout", "Convolution", "Convolution", "Convolution", "Relayout"]


def test_a_tensor_has_the_widest_halo_that_any_reader_asks():
    model = Of(lambda x, a, b, c: b(y := a(x)) + c(y), a=conv1(), b=conv3(), c=lambda: nn.Conv2d(20, 20, 7, padding=3))
    found = placed_from(fused_from(model, (20, 6, 6)))
    first = next(stage for stage in found.stages if isinstance(stage, Convolution))
    assert found.layouts[first.out.name].halo == (3, 3, 3, 3)


def test_parts_of_nested_concatenations_share_their_halo():
    model = Of(lambda x, a, b, c, d: d(cat(cat(a(x), b(x)), c(x))), a=conv1(), b=conv1(), c=conv1(), d=conv3(60, 4))
    found = placed_from(fused_from(model, (20, 6, 6)))
    parts = [part for stage in found.stages if isinstance(stage, Concat) for part in (*stage.parts, stage.out)]
    assert {found.layouts[part.name].halo for part in parts} == {(1, 1, 1, 1)}
    assert [stage.out for stage in relayouts(found)] == [found.result]


def test_an_unaligned_concatenation_keeps_the_padding_of_its_parts():
    model = Of(lambda x, a, b: cat(a(x), b(x)), a=conv1(20, 3), b=conv1(20, 5))
    found = placed_from(fused_from(model, (20, 6, 6)))
    whole = next(stage for stage in found.stages if isinstance(stage, Concat))
    assert found.layouts[whole.out.name].channels == (0, 1, 2, -1, 3, 4, 5, 6, 7, -1, -1, -1)


def test_a_flattened_map_keeps_its_blocks_and_knows_the_order():
    found = placed_from(fused_from(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten()), (3, 1, 2)))
    flat = next(stage for stage in found.stages if type(stage).__name__ == "Flatten")
    # slot (pixel 0: channels 0 1 2 -; pixel 1: ...); a feature is channel * 2 + pixel
    assert found.layouts[flat.out.name].channels == (0, 2, 4, -1, 1, 3, 5, -1)


def test_a_vector_that_fills_blocks_is_seen_in_blocks_without_a_copy():
    found = placed_from(fused_from(nn.ReLU(), (8,)))
    assert kinds(found) == ["Flatten", "Elementwise"]
    assert found.layouts[found.stages[1].x.name].block == 4


def test_a_copy_is_made_once_for_all_that_read_it():
    model = Of(lambda x, a, b: cat(a(x), b(x)), a=conv3(), b=conv3())
    found = placed_from(fused_from(model, (20, 6, 6)))
    assert len([stage for stage in relayouts(found) if stage.x.name == "input"]) == 1


def test_depthwise_keeps_the_order_of_an_unaligned_concatenation():
    model = Of(
        lambda x, a, b, c: c(cat(a(x), b(x))), a=conv1(20, 3), b=conv1(20, 5), c=lambda: nn.Conv2d(8, 8, 3, groups=8)
    )
    found = placed_from(fused_from(model, (20, 6, 6)))
    last = [stage for stage in found.stages if isinstance(stage, Convolution)][-1]
    assert found.layouts[last.out.name].channels == found.layouts[last.x.name].channels
    assert -1 in found.layouts[last.out.name].channels[:4]


def test_the_result_is_row_major():
    found = placed_from(fused_from(Of(lambda x, a: torch.relu(a(x)), a=conv3(20, 6)), (20, 4, 4)))
    assert found.layouts[found.result.name] == plain(found.result)
    assert found.layouts["input"].halo == NO_HALO
