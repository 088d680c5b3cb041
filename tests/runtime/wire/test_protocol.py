"""The protocol's messages and tensors: the specification's numbers, and what comes from outside."""

import re
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltree.errors import FormatError
from runtime.wire.protocol import rest
from runtime.wire.protocol.messages import PROTOS, message, pool
from runtime.wire.protocol.reasons import Reason
from runtime.wire.protocol.tensors import Tensor

BYTES = b"\x0a\x01m\x1a\x02id\x2a\x0d\x0a\x01x\x12\x04FP32\x1a\x02\x01\x02\x3a\x08" + bytes(8)
"""A request by hand after the specification: model_name 1, id 3, inputs 5 (name 1, datatype 2, shape 3, packed),
raw_input_contents 7."""


def test_a_request_has_the_specifications_bytes():
    made = message("inference.ModelInferRequest")(model_name="m", id="id", raw_input_contents=[bytes(8)])
    made.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    assert made.SerializeToString() == BYTES
    assert message("inference.ModelInferRequest").FromString(BYTES) == made


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("ModelInferRequest", {"model_name": 1, "model_version": 2, "id": 3, "parameters": 4, "inputs": 5,
                               "outputs": 6, "raw_input_contents": 7}),
        ("ModelInferResponse", {"model_name": 1, "model_version": 2, "id": 3, "parameters": 4, "outputs": 5,
                                "raw_output_contents": 6}),
        ("ModelMetadataResponse", {"name": 1, "versions": 2, "platform": 3, "inputs": 4, "outputs": 5}),
        ("InferParameter", {"bool_param": 1, "int64_param": 2, "string_param": 3, "double_param": 4,
                            "uint64_param": 5}),
        ("InferTensorContents", {"bool_contents": 1, "int_contents": 2, "int64_contents": 3, "uint_contents": 4,
                                 "uint64_contents": 5, "fp32_contents": 6, "fp64_contents": 7, "bytes_contents": 8}),
    ],
)  # fmt: skip
def test_fields_have_the_specifications_numbers(name, numbers):
    fields = message(f"inference.{name}").DESCRIPTOR.fields
    assert {field.name: field.number for field in fields} == numbers


@pytest.mark.parametrize("value", [True, -5, "text", 0.25])
def test_a_parameter_is_one_of_its_kinds(value):
    made = message("inference.ModelInferResponse")()
    kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
    setattr(made.parameters["p"], kind, value)
    read = message("inference.ModelInferResponse").FromString(made.SerializeToString())
    assert read.parameters["p"].WhichOneof("parameter_choice") == kind
    assert getattr(read.parameters["p"], kind) == value


def test_our_messages_leave_the_default_pool_to_others():
    from google.protobuf import descriptor_pool

    message("inference.ModelInferRequest")
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")


def test_every_field_of_the_proto_files_is_in_the_descriptors_and_no_other():
    """Names and numbers alone; tests/interop/test_protoc.py has protoc make them again."""
    for name in PROTOS:
        file = pool().FindFileByName(name)
        text = resources.files("runtime.wire.protocol").joinpath(name).read_text()
        written = re.findall(r"^[^/]*?(\w+) = (\d+);", text, re.M)
        assert sorted(written) == sorted(
            (one.name, str(one.number)) for message in messages_in(file.message_types_by_name.values())
            for one in (*message.fields, *(value for kind in message.enum_types for value in kind.values))
        )  # fmt: skip


def messages_in(messages):
    """All of them, but for the entries that protoc makes of maps."""
    for one in messages:
        if not one.GetOptions().map_entry:
            yield one
            yield from messages_in(one.nested_types)


@pytest.mark.parametrize("array", [np.arange(6, dtype=np.float32).reshape(2, 3).T, np.arange(4, dtype=np.uint8)])
def test_a_tensor_comes_back_from_its_bytes(array):
    sent = Tensor.of("x", array)
    read = Tensor.checked("x", sent.datatype, sent.shape, bytes(sent.data))
    np.testing.assert_array_equal(read.array(), array)
    assert not read.array().flags.writeable


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("FP16", (1,), b"00"),
        ("FP32", (1,), b"000"),
        ("FP32", (-1, -1), b"0000"),
        ("FP32", (2**62, 4), b""),
        ("FP32", (1,) * 9, b"0000"),
        ("FP32", (1,), ["x"]),
        ("FP32", (1,), [None]),
        ("FP32", (2,), [[1, 2], [3]]),
        ("UINT8", (1,), [256]),
        ("UINT8", (1,), [-1]),
        ("UINT8", (1,), [0.5]),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(datatype, shape, data):
    with pytest.raises(FormatError, match="tensor 'x'"):
        Tensor.checked("x", datatype, shape, data)


@given(st.binary(max_size=64), st.text(max_size=8) | st.none())
def test_any_bytes_are_split_or_refused(body, header_length):
    try:
        header, blob = rest.split(body, header_length)
    except FormatError:
        return
    assert bytes(header) + bytes(blob) == body


@pytest.mark.parametrize(
    ("sizes", "count"), [([4, 4], 7), ([4, 4], 9), ([-1, 4], 4), ([4.0], 4), (["4"], 4), ([True], 4)]
)
def test_sizes_that_do_not_add_up_are_refused(sizes, count):
    described = [
        rest.Described(name="x", datatype="FP32", shape=[1], parameters={"binary_data_size": size}) for size in sizes
    ]
    with pytest.raises(FormatError):
        rest.tensors(described, memoryview(bytes(count)))


def test_every_reason_has_a_word_of_its_own():
    assert len({reason.word for reason in Reason}) == len(Reason)
    assert all(Reason.of_word(reason.word) is reason for reason in Reason)
    assert Reason.of_word("nonsense") is None
    assert Reason.of_word(None) is None


def test_rest_needs_no_package_for_grpc():
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("grpc", "google"):
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
from modeltree.errors import ConfigError
from runtime.wire.transports import open_transport
import runtime.server.fronts.rest_front
from runtime.server.fronts.grpc_front import GrpcFront
open_transport("http://localhost:1").close()
for open_grpc in (lambda: open_transport("grpc://localhost:1"), lambda: GrpcFront(None, None)):
    try:
        open_grpc()
    except ConfigError as error:
        print("cloud" in str(error))
assert "torch" not in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("True\nTrue\n", "")
