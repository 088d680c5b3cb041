"""A field run's parts: what is played, what a slower device is asked, what measured times make of a tree, children."""

import math
import subprocess
import sys
from types import SimpleNamespace

import exits_run
import msgspec
import numpy as np
import pytest
from bundles import FEATURES, FIRST, FROM_FOUR, FROM_IMAGE, IMAGE, SECOND, manifest, tree

from modeltree.errors import ConfigError, NasError
from modeltree.link.traces import Trace
from modeltree.manifest import encode_manifest
from modeltree.tree.render import path_text
from nas.cli.links.field import over_surgery
from nas.field.config import FieldConfig, factor_of
from nas.field.images import FieldImages, field_images
from nas.field.methods import find_methods, predicted_s, slowdown_text
from nas.field.processes.child import Child
from nas.field.processes.device import Line
from nas.field.processes.links import chosen_link, port_of
from nas.field.processes.relaying import RelayTask
from nas.field.processes.turn import measured_of
from nas.field.record import Shot
from nas.field.replay import Measured, leaves_of, method_run, replayed_tree
from nas.field.tally import tally
from runtime.link import Relay, Shape

STEADY = Trace(
    name="steady", origin="test", time_s=np.zeros(1), bandwidth_mbps=np.array([8.0]), end_s=100.0, rtt_ms=30.0
)
"""1000 bytes a millisecond: fast, so the image crosses in 30 + 3.072 ms."""


def shot(nodes, start_s=0.0, *, device_ms=0.0, transfer_ms=0.0, cloud_ms=0.0, by=None):
    return Shot(
        start_s=start_s, link_mbps=8.0, types=(0,), mbps=(None,), nodes=nodes, why="", predicted_class=0,
        answered_by=by or ("cloud" if transfer_ms else "device"), device_ms=device_ms, encode_ms=0.0,
        transfer_ms=transfer_ms, cloud_ms=cloud_ms, wait_ms=0.0, total_ms=device_ms + transfer_ms + cloud_ms,
    )  # fmt: skip


def here(device_ms=100.0):
    return shot((0, 2), device_ms=device_ms)


def far(transfer_ms=43.072, cloud_ms=2.7, **rest):
    return shot((1,), transfer_ms=transfer_ms, cloud_ms=cloud_ms, **rest)


def test_inferences_are_spread_over_a_short_trace_and_never_further_apart_than_looked():
    config = FieldConfig(bundles=(), trace=STEADY)
    assert config.apart_ms == 250.0
    short = Trace(name="s", origin="t", time_s=np.zeros(1), bandwidth_mbps=np.ones(1), end_s=10.0, rtt_ms=1.0)
    assert FieldConfig(bundles=(), trace=short, count=100).apart_ms == pytest.approx(100.0)
    assert FieldConfig(bundles=(), trace=short, every_ms=7.0).apart_ms == 7.0


@pytest.mark.parametrize(
    ("bad", "said"),
    [({"link": "radio"}, "known are"), ({"count": 0}, "count"), ({"every_ms": -1.0}, "every_ms"),
     ({"offset_s": math.inf}, "offset_s"), ({"slowdown": "half"}, "slowdown"), ({"slowdown": "0.5"}, "from 1 on"),
     ({"seed": -1}, "seed"), ({"interleaved": True}, "pass --link relay")],
)  # fmt: skip
def test_what_cannot_be_played_is_refused_with_what_must_be(bad, said):
    with pytest.raises(ConfigError, match=said):
        FieldConfig(bundles=(), trace=STEADY, **bad)


def test_a_slowdown_is_a_word_or_a_number_and_is_told():
    assert [factor_of(word) for word in ("none", "profile", "3.5")] == [None, None, 3.5]
    assert slowdown_text("none", tree()) == ""
    assert "profile of phone" in slowdown_text("profile", tree())
    assert "3.5 times" in slowdown_text("3.5", tree())


def test_the_profile_asks_of_a_block_what_its_node_predicts_and_of_a_rest_what_its_handover_does():
    plain = tree()
    known = msgspec.structs.replace(plain.nodes[1].handover, device_ms=75.0)
    nodes = tuple(msgspec.structs.replace(n, handover=known) if n.id == 1 else n for n in plain.nodes)
    found = predicted_s(msgspec.structs.replace(plain, nodes=nodes))
    assert found == pytest.approx({FIRST: 0.02, SECOND: 0.06, FROM_IMAGE: 0.075})  # FROM_FOUR's is not known


def written(folder, method=""):
    folder.mkdir(parents=True)
    made = manifest()
    made = msgspec.structs.replace(made, provenance=msgspec.structs.replace(made.provenance, method=method))
    (folder / "manifest.json").write_bytes(encode_manifest(made))
    return folder


def test_methods_come_from_bundles_and_folders_the_simplest_first(tmp_path):
    for name in ("b/tree", "b/surgery", "mine"):
        written(tmp_path / name, method="" if name == "mine" else name[2:])
    assert [one.name for one in find_methods([tmp_path / "mine", tmp_path / "b"])] == ["surgery", "tree", "mine"]


def test_two_bundles_of_one_method_and_a_folder_without_any_are_refused(tmp_path):
    one, two = written(tmp_path / "a" / "x", "tree"), written(tmp_path / "c" / "x", "tree")
    with pytest.raises(ConfigError, match="both of method tree"):
        find_methods([one, two])
    with pytest.raises(ConfigError, match="no bundle and no folder"):
        find_methods([tmp_path])


def test_measured_parts_replace_predicted_ones_and_scale_those_never_met():
    measured = Measured(shots=(here(), far(), far(45.072, 3.3)), blocks_ms={FIRST: (30.0, 50.0)})
    played = replayed_tree(tree(), measured, STEADY)
    assert played.nodes[0].device_ms == pytest.approx(40.0)  # the mean of 30 and 50
    assert played.nodes[2].device_ms == pytest.approx(120.0)  # 60, scaled by 40 / 20
    assert played.nodes[1].cloud_ms == pytest.approx(3.0)  # the mean of 2.7 and 3.3
    assert played.nodes[3].cloud_ms == pytest.approx(0.6 * 3.0 / 0.9)
    assert played.rtt_ms == pytest.approx(41.0)  # 43.072 and 45.072, less the 3.072 ms of the image's bytes
    assert (played.nodes[1].device_ms, played.nodes[3].device_ms) == (0.0, 0.0)


def test_where_nothing_was_measured_predictions_stay():
    assert replayed_tree(tree(), Measured(shots=(), blocks_ms={}), STEADY) == tree()


def test_an_answer_that_was_not_as_planned_tells_nothing_of_the_cloud_nor_of_its_path():
    alone = shot((1,), device_ms=80.0, by="device")
    played = replayed_tree(tree(), Measured(shots=(alone,), blocks_ms={FROM_IMAGE: (80.0,)}), STEADY)
    assert (played.nodes[1].cloud_ms, played.rtt_ms) == (0.9, 30.0)
    one, *_ = leaves_of(tree(), [alone, far()], STEADY)
    assert (one.leaf, one.shots, one.device_ms, one.transfer_ms) == (1, 2, 0.0, 43.072)


def test_leaves_tell_what_was_predicted_at_the_rate_of_the_link_and_what_was_measured():
    found = {one.leaf: one for one in leaves_of(tree(), [here(), here(60.0), far()], STEADY)}
    assert found[1].transfer_predicted_ms == pytest.approx(33.072)
    assert (found[1].cloud_predicted_ms, found[1].cloud_ms) == (0.9, 2.7)
    assert (found[2].device_predicted_ms, found[2].device_ms, found[2].transfer_ms) == (80.0, 80.0, None)
    assert (found[3].shots, found[3].device_ms) == (0, None)
    assert found[3].transfer_predicted_ms == pytest.approx(30 + 16.384)


def test_paths_are_told_in_a_few_words():
    paths = {end.id: path_text(tree().path(end.id)) for end in tree().leaves()}
    assert paths[2] == "2 blocks here, 1 layer compressed"
    assert paths[1].startswith("place 0 (the input image)")
    assert paths[3].startswith("1 block here, 1 layer compressed, then place 4")


def test_a_method_is_emulated_on_the_link_that_was_played_and_replayed_with_what_was_measured():
    played = Trace(name="p", origin="t", time_s=np.zeros(1), bandwidth_mbps=np.array([8.0]), end_s=9.0, rtt_ms=50.0)
    run, _ = method_run("tree", "b", manifest(), Measured(shots=(far(63.072),), blocks_ms={}), played)
    assert run.emulated_ms == pytest.approx((50 + 3.072 + 0.9,))
    assert run.replayed_ms == pytest.approx((60 + 3.072 + 2.7,))


def test_paths_through_exits_count_the_heads_that_are_asked_on_the_way():
    """The block takes 1 ms, the head 1 ms for everybody, and the rest 60; who is sure pays for the head once."""
    found = {one.leaf: one for one in leaves_of(exits_run.tree(), [], STEADY)}
    assert found[exits_run.END].device_predicted_ms == pytest.approx(62.0)
    assert found[exits_run.SURE].device_predicted_ms == pytest.approx(2.0)
    assert found[exits_run.SURE].text == "2 blocks here, through exit 1 when sure"
    assert found[exits_run.EXIT].text == "2 blocks here, through exit 2"
    assert {number: (one.exit, one.bits) for number, one in found.items()} == {
        1: (None, None), 2: (None, 4), 3: (1, None), 4: (2, None), 5: (None, 8)
    }  # fmt: skip


def test_emulations_of_a_run_are_driven_as_the_run_was():
    """On a slow link the switch goes to the end, the exact rule through exit 2; 0.4 are sure in either case."""
    built = SimpleNamespace(tree=exits_run.tree())  # as much of a manifest as is looked at
    slow = Trace(name="p", origin="t", time_s=np.zeros(1), bandwidth_mbps=np.array([1.0]), end_s=9.0, rtt_ms=2.0)
    shots = Measured(shots=tuple(shot((0, 1), device_ms=62.0, by="device") for _ in range(10)), blocks_ms={})
    by_switch, _ = method_run("tree", "b", built, shots, slow)
    exactly, _ = method_run("tree", "b", built, shots, slow, "exact")
    assert set(by_switch.emulated_ms) == {2.0, 62.0}
    assert set(exactly.emulated_ms) == {2.0, 22.0}


def line(began_s, **rest):
    parts = {"device": 1.0, "encode": 0.1, "transfer": 3.0, "cloud": 2.0, "wait": 0.2, "total": 6.3}
    return Line(
        began_s=began_s, nodes=(1,), types=(1,), mbps=(8.0,), answered_by="cloud", why="", met=True,
        predicted_class=1, parts_ms=parts, blocks_ms=((FIRST, 1.0),), **rest,
    )  # fmt: skip


def test_what_the_device_tells_is_laid_on_the_trace_and_labelled_by_its_image():
    steps = Trace(
        name="s", origin="t", time_s=np.array([0.0, 1.0]), bandwidth_mbps=np.array([4.0, 16.0]), end_s=2.0, rtt_ms=1.0
    )
    images = FieldImages(images=np.zeros((2, *IMAGE), np.uint8), labels=(1, None), origin="test")
    measured = measured_of([line(0.0), line(0.75), line(1.5)], steps, 0.5, images)
    assert [one.start_s for one in measured.shots] == [0.5, 1.25, 2.0]
    assert [one.link_mbps for one in measured.shots] == [4.0, 16.0, 4.0]
    assert [one.label for one in measured.shots] == [1, None, 1]
    assert measured.blocks_ms == {FIRST: (1.0, 1.0, 1.0)}
    assert (measured.shots[0].cloud_ms, measured.shots[0].total_ms) == (2.0, 6.3)


def test_images_of_a_folder_are_labelled_where_their_folder_is_named_like_a_class(tmp_path):
    from PIL import Image

    for name in ("dog", "holiday"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 50), "white").save(tmp_path / name / "one.png")
    found = field_images(manifest(), tmp_path, count=5, seed=0)
    assert (found.images.shape, found.images.dtype, found.labels) == ((2, *IMAGE), np.uint8, (1, None))
    with pytest.raises(ConfigError, match="no image"):
        field_images(manifest(), tmp_path / "holiday" / "none", count=5, seed=0)


def test_noise_is_the_same_for_the_same_seed():
    one, same, other = (field_images(manifest(), None, count=3, seed=seed).images for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_port_is_read_from_what_the_server_says():
    assert port_of("/b/tree: 2 models on grpc://127.0.0.1:40123") == 40123
    with pytest.raises(NasError, match="where it listens"):
        port_of("hello")


def test_a_relay_is_chosen_where_it_is_asked_for():
    assert chosen_link("relay") == "relay"
    assert chosen_link("auto") in ("relay", "namespaces")


def test_over_surgery_is_in_percent_of_its_measured_mean():
    runs = {name: method_run(name, "b", manifest(), Measured(shots=(far(ms),), blocks_ms={}), STEADY)[0]
            for name, ms in (("surgery", 37.3), ("tree", 17.3))}  # fmt: skip
    surgery, ours = (tally(runs[name], ()) for name in ("surgery", "tree"))
    assert over_surgery(ours, [surgery, ours]) == pytest.approx(100 * (20.0 / 40.0 - 1))
    assert math.isnan(over_surgery(surgery, [surgery, ours]))


def test_a_child_talks_in_lines_and_a_failing_one_tells_its_last_words():
    with Child("echo", "nas.field.processes.relaying:main") as child:
        child.say({"host": "here"})
        with pytest.raises(NasError, match=r"the echo ended with status 1[\s\S]*ValidationError"):
            child.heard(30.0)
    with Child("silent", "nas.field.processes.relaying:main") as child, pytest.raises(NasError, match="said nothing"):
        child.line(0.1)


def test_a_relay_that_starts_its_trace_again_delays_no_connection_from_before():
    import socket
    import time

    with socket.create_server(("127.0.0.1", 0)) as server, Relay(server.getsockname(), up=Shape(trace=STEADY)) as relay:
        time.sleep(0.5)
        with socket.create_connection(relay.address) as device:
            peer, _ = server.accept()
            with peer:
                relay.rewind()
                began_s = time.monotonic()
                device.sendall(b"x")
                assert peer.recv(1) == b"x"
                assert time.monotonic() - began_s < 0.4


def test_a_relay_task_crosses_as_json_with_its_trace():
    task = RelayTask(
        host="h", port=1, time_s=(0.0, 1.0), bandwidth_mbps=(1.0, 2.0), end_s=3.0, rtt_ms=9.0, offset_s=1.0
    )
    again = msgspec.json.decode(msgspec.json.encode(task), type=RelayTask)
    assert (again.shape.mbps(0.5), again.shape.trace.rtt_ms) == (2.0, 9.0)


def test_the_device_and_the_relay_load_no_torch():
    modules = "nas.field.processes.device, nas.field.processes.relaying"
    code = f"import sys, {modules}; print({{'torch', 'tvm', 'PIL'}} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "set()"


def test_torch_says_what_a_path_computes_quantised_where_it_crossed(tmp_path):
    torch = pytest.importorskip("torch")
    from compile.program_file import program_bytes
    from nas.field.checking import Checker, relative_error
    from transforms.graph.lifting import export

    torch.manual_seed(0)
    first = torch.nn.Conv2d(3, 256, 8, stride=8).eval()
    rest = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4096, 2)).eval()
    (tmp_path / "blocks").mkdir()
    for name, module, shape in ((FIRST, first, IMAGE), (FROM_FOUR, rest, FEATURES)):
        (tmp_path / "blocks" / f"{name}.pt2").write_bytes(program_bytes(export(module, shape)))
    pixels = np.random.default_rng(0).integers(0, 256, IMAGE, dtype=np.uint8)
    with torch.no_grad():
        features = first(torch.from_numpy(((pixels / 255 - 0.5) / 0.25).astype(np.float32))[None])
        wanted = rest(features).numpy()[0]
        low, high = features.min(), features.max()
        step = (high - low) / 3
        coarse = rest(torch.round((features - low) / step) * step + low).numpy()[0]
    plain = tree()
    two = msgspec.structs.replace(plain.nodes[3].handover, bits=2)
    nodes = (*plain.nodes[:3], msgspec.structs.replace(plain.nodes[3], handover=two))
    quantised, checker = msgspec.structs.replace(plain, nodes=nodes), Checker(tmp_path)
    crossed = shot((0, 3), transfer_ms=50.0)
    assert relative_error(checker.logits(plain, crossed, pixels), wanted) < 1e-5
    assert relative_error(checker.logits(quantised, crossed, pixels), coarse) < 1e-4
    assert relative_error(checker.logits(quantised, shot((0, 3), by="device"), pixels), wanted) < 1e-5
    assert relative_error(coarse, wanted) > 1e-3
    with pytest.raises(ConfigError, match="is not there"):
        checker.logits(plain, here(), pixels)
    assert relative_error(np.array([np.nan, 1.0]), wanted) == math.inf
