"""What a session meets is kept in bounded room, beside what its tree had predicted."""

import math

import msgspec
import pytest
from trees import RTT_MS, forked_tree

from modeltree.errors import DataError, FormatError
from modeltree.met import Timed, read_met, write_met
from runtime.meter import KEPT, Meter

BLOCK, REST = "a" * 20, "b" * 20


def tree():
    """The forked tree with names of blocks: node 1 runs one and hands 4000 bytes over."""
    nodes = list(forked_tree().nodes)
    handover = msgspec.structs.replace(nodes[1].handover, block=REST, device_ms=40.0, encode_ms=0.5)
    nodes[1] = msgspec.structs.replace(nodes[1], block=BLOCK, handover=handover)
    return msgspec.structs.replace(forked_tree(), nodes=tuple(nodes), version=3)


def crossed(meter, **changes):
    told = {"encode_ms": 1.0, "transfer_ms": 20.0, "server_ms": 3.0, "sent_bytes": 4200, "carried_ms": 14.0,
            "predicted_ms": 13.0} | changes  # fmt: skip
    meter.crossed(tree(), 1, **told)


def test_what_ran_is_a_median_beside_what_the_tree_says_of_it():
    meter = Meter(tree())
    meter.ran([(BLOCK, 5.0), (BLOCK, 7.0), (BLOCK, 60.0), (REST, 44.0), ("c" * 20, 1.0)])
    met = meter.met("session", "a test", rtt_ms=RTT_MS)
    wanted = Timed(predicted_ms=4.0 - 0.5, ms=7.0, count=3, spread=(33.5 - 6.0) / 2)  # coding is no part of the block
    assert met.blocks[BLOCK] == wanted
    assert met.blocks[REST].predicted_ms == 40
    assert met.blocks["c" * 20].predicted_ms == 0
    assert (met.device, met.cloud, met.crossed, met.estimates) == ("pi4", "gpu", None, None)


def test_a_hand_over_tells_coding_server_and_what_it_took_beside_its_bytes():
    meter = Meter(tree())
    crossed(meter)
    crossed(meter, transfer_ms=24.0, carried_ms=15.0)
    met = meter.met("session", "a test", rtt_ms=RTT_MS)
    assert met.rests == {f"{REST} 32 bits": Timed(predicted_ms=0.5, ms=3.0, count=2)}
    assert [(one.code, one.units, one.predicted_ms, one.ms) for one in met.encodings] == [("32 bits", 1000, 0.5, 1.0)]
    assert (met.crossed.extra_ms, met.crossed.message_bytes, met.crossed.rtt_ms) == (7.5, 200, RTT_MS)


def test_the_error_of_single_hand_overs_is_told_and_what_is_left_of_it():
    meter = Meter(tree())
    for carried, took in ((10, 15), (20, 26), (40, 45)):
        crossed(meter, transfer_ms=took, carried_ms=carried, predicted_ms=carried)
    found = meter.met("session", "a test", rtt_ms=RTT_MS).crossed
    assert found.error == pytest.approx(6 / 26)  # of 5/15, 6/26 and 5/45
    assert found.mended_error == pytest.approx(0)  # 5 ms more: 0, 1/26 and 0


def test_only_the_latest_count():
    meter = Meter(tree())
    meter.ran([(BLOCK, 1.0)] * 1000 + [(BLOCK, 9.0)] * KEPT)
    assert meter.met("field", "a test", rtt_ms=1.0).blocks[BLOCK] == Timed(predicted_ms=3.5, ms=9.0, count=KEPT)


def test_an_estimate_is_off_by_a_factor_and_nothing_is_said_where_none_was_known():
    meter = Meter(tree())
    meter.estimated(math.nan, 8.0, right=True)
    meter.estimated(2.0, 8.0, right=False)
    meter.estimated(8.0, 2.0, right=True)
    estimates = meter.met("field", "a test", rtt_ms=1.0).estimates
    assert estimates.error == pytest.approx(math.log(4))
    assert (estimates.right, estimates.count) == (0.5, 2)


def test_it_comes_back_from_its_file_and_from_a_field_run(tmp_path):
    meter = Meter(tree())
    crossed(meter)
    met = meter.met("session", "a test", rtt_ms=RTT_MS)
    write_met(met, tmp_path / "met.json")
    (tmp_path / "field.json").write_bytes(msgspec.json.encode({"version": 1, "shots": [], "met": met}))
    assert read_met(tmp_path / "met.json") == read_met(tmp_path) == met


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"version": 1, "methods": []}', '{"met": {"device": 3}}'])
def test_a_file_that_says_nothing_of_it_is_refused(tmp_path, text):
    path = tmp_path / "field.json"
    path.write_text(text)
    with pytest.raises(FormatError, match="does not say what was met"):
        read_met(path)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.json"):
        read_met(tmp_path / "nothing.json")
