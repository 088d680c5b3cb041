"""What is hostile is refused with a reason, by a real server and by readers of bundles; benchmarks/hostile.py has more.

`hostile_messages`, `hostile_http` and `hostile_bundles` make it, `hostile_server` sends it and judges the answers.
"""

import random

import msgspec
import numpy as np
import pytest
from hostile_bundles import KINDS, opened, tampered, whole
from hostile_http import HTTP_KINDS, over_http
from hostile_messages import GRPC_KINDS, TOKEN, Asked, Hostile, grpc_request, over_grpc
from hostile_server import Served
from small_bundle import write_small_bundle

from modeltree.errors import FormatError
from runtime.wire.protocol import rest
from runtime.wire.protocol.message_size import MAX_WEIGHT_BYTES, RAW_INPUTS, RAW_OUTPUTS, check_weight
from runtime.wire.protocol.messages import message
from runtime.wire.protocol.tensors import Tensor

OF_EACH_KIND = 3
GROWTH_MB = 400
"""Messages of 16 MB come and go; what the allocator keeps of them is not given back."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    with Served(write_small_bundle(folder / "bundle", batches=(1,)), folder) as made:
        yield made


def called(data, **said):
    """An inference over gRPC."""
    method = "/inference.GRPCInferenceService/ModelInfer"
    return Hostile(kind="called", data=data, method=method, metadata=(("authorization", f"Bearer {TOKEN}"),), **said)


def of_kinds(make, kinds):
    return [pytest.param(make, kind, id=f"{make.__name__}: {kind}") for kind in kinds]


@pytest.mark.parametrize(("make", "kind"), of_kinds(over_grpc, GRPC_KINDS) + of_kinds(over_http, HTTP_KINDS))
def test_a_server_refuses_it_with_a_reason_and_goes_on(served, make, kind):
    rng = random.Random(kind)
    for _ in range(OF_EACH_KIND):
        outcome, wrong = served.send(make(rng, kind))
        assert not wrong, outcome
    assert served.alive()


def test_amid_all_of_it_good_requests_are_answered_and_memory_does_not_grow(served):
    rng, before_mb = random.Random(0), served.memory_mb()
    for number in range(1, 301):
        outcome, wrong = served.send(rng.choice((over_grpc, over_http))(rng))
        assert not wrong, outcome
        if number % 100 == 0:
            assert served.check() == []
    assert served.memory_mb("VmHWM") < before_mb + GROWTH_MB
    assert b"Traceback" not in served.log.read_bytes()


def test_a_message_of_empty_tensors_takes_little_more_memory_than_it_is_large(served):
    before_mb = served.memory_mb("VmHWM")
    outcome, wrong = served.send(called(b"\x2a\x00" * 7_500_000))
    assert not wrong, outcome
    assert served.memory_mb("VmHWM") < before_mb + 10 * 15


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return whole(tmp_path_factory.mktemp("tampered") / "good")


def test_a_bundle_that_nobody_touched_is_loaded(good):
    assert opened(good, good) == ("harmless harmless", "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_that_was_tampered_with_is_refused_before_anything_is_loaded(good, kind, tmp_path):
    rng = random.Random(kind)
    for number in range(OF_EACH_KIND):
        outcome, wrong = opened(tampered(rng, good, tmp_path / str(number), kind)[1], good)
        assert not wrong, outcome


def test_when_the_last_library_is_off_the_first_is_not_loaded_either(good, tmp_path):
    _, folder = tampered(random.Random(0), good, tmp_path / "bundle", "manifest: bits flipped")
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_bytes((good / "manifest.json").read_bytes())
    last = max(folder.glob("lib/host/*.so"))
    data = last.read_bytes()
    last.unlink()
    last.write_bytes(bytes(len(data)))
    assert opened(folder, good) == ("FormatError FormatError", "")


def test_a_message_of_numbers_weighs_little_and_one_of_empty_tensors_much():
    check_weight(grpc_request(Asked(inputs=(("x", "FP32", (1, 10**6), bytes(4 * 10**6)),))), RAW_INPUTS)
    made = message("inference.ModelInferRequest")()
    made.inputs.add(name="x", datatype="FP32", shape=[10**6]).contents.fp32_contents.extend(np.zeros(10**6))
    check_weight(made.SerializeToString(), RAW_INPUTS)
    check_weight(b"", RAW_INPUTS)
    for empty in (b"\x2a\x00", b"\x3a\x00", b"\x2a\x02\x22\x00", b"\x22\x00", b"\x32\x00"):
        check_weight(empty * (MAX_WEIGHT_BYTES // len(empty)), RAW_INPUTS)
        with pytest.raises(FormatError, match="not numbers"):
            check_weight(empty * (MAX_WEIGHT_BYTES // len(empty) + 1), RAW_INPUTS)
    with pytest.raises(FormatError, match="not numbers"):  # 7 is raw in a request only
        check_weight(b"\x3a" + b"\xff\xff\x7f" + bytes(2**21 - 1), RAW_OUTPUTS)


@pytest.mark.parametrize("data", [b"\x2a", b"\x2a\x05abc", b"\xff" * 20, b"\x0b", b"\x0d\x00", b"\x2a\x02\x3a\x09"])
def test_what_is_no_message_is_refused_before_it_is_parsed(data):
    with pytest.raises(FormatError, match="send it whole"):
        check_weight(data, RAW_INPUTS)


@pytest.mark.parametrize("shape", [(0, 2**62, 2**62), (0, 2**63), (2**40, 0, 2**40), (10**5000,), (1,) * 10**6])
def test_sizes_that_no_array_can_have_are_refused_in_few_words(shape):
    with pytest.raises(FormatError) as refused:
        Tensor.checked("é" * 10**6, "FP32", shape, b"")
    assert len(str(refused.value)) < 600


def test_an_empty_tensor_of_possible_sizes_is_an_array():
    assert Tensor.checked("x", "FP32", (0, 3, 4), b"").array().shape == (0, 3, 4)


def test_numbers_in_json_are_numbers_flat_or_nested():
    def read(data):
        text = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":%s}]}' % data
        header, blob = rest.split(text, None)
        (tensor,) = rest.tensors(msgspec.json.decode(header, type=rest.InferRequest).inputs, blob)
        return tensor.array().tolist()

    assert read(b"[1, 2.5, -3e0, 4]") == read(b"[[1, 2.5], [-3, 4]]") == [[1, 2.5], [-3, 4]]
    for data in (b'["1", 2, 3, 4]', b"[true, 2, 3, 4]", b"[[[[[[[[[1]]]]]]]]]"):
        with pytest.raises(msgspec.ValidationError):
            read(data)
    with pytest.raises(FormatError, match="lists and objects"):
        read(b"[" + b"[]," * 100_000 + b"1]")


def test_a_request_that_is_good_is_not_taken_for_hostile(served):
    assert served.send(called(grpc_request(Asked()), passes=True)) == ("OK", "")
