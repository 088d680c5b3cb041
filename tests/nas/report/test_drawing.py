"""Cards of the drawing say how what crosses is coded."""

from msgspec.structs import replace
from trees import cloud_only

from nas.report.search.drawing import draw_tree


def test_a_picture_that_crosses_as_a_file_is_named_by_its_code():
    tree = cloud_only()
    (end,) = tree.nodes
    coded = replace(end, handover=replace(end.handover, bits=8, code="jpeg:75@160"))
    drawn = draw_tree(replace(tree, nodes=(coded,), version=2))
    assert "jpeg:75@160" in drawn
    assert "bits a number" not in drawn
    assert "32 bits a number" in draw_tree(tree)


def test_a_base_that_is_a_file_is_named_by_the_file():
    drawn = draw_tree(replace(cloud_only(), base="/a/very/long/way/to/net.py:build"))
    assert "net.py:build" in drawn
    assert "/a/very" not in drawn
