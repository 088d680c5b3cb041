"""gRPC's server reflection: what services and messages there are, for clients such as grpcurl.

The package grpcio-reflection is not taken: its generated code is tied to one major version of protobuf, it speaks
v1alpha alone, and it lets a stream hold a thread for ever.
"""

from collections.abc import Iterator
from typing import Any

from modeltree.errors import FormatError
from runtime.wire.protocol.messages import message, pool

SERVICE = "grpc.reflection.v1.ServerReflection"
SERVICES = (SERVICE, SERVICE.replace("v1", "v1alpha"))
"""The second is the same under an older name."""
MOST_BYTES = 4096
"""Of a question; it comes back with the answer."""
_NOT_FOUND, _UNIMPLEMENTED = 5, 12


def reflected(services: tuple[str, ...], questions: Iterator[bytes]) -> Iterator[bytes]:
    """The answer to every question, as long as they come.

    services : names of what is served.

    Raises
    ------
    FormatError : a question is none, or is too long.
    """
    from google.protobuf.message import DecodeError

    for data in questions:
        if len(data) > MOST_BYTES:
            raise FormatError(f"the question has {len(data)} bytes: {MOST_BYTES} at most")
        try:
            asked = message("grpc.reflection.v1.ServerReflectionRequest").FromString(data)
        except DecodeError as error:
            raise FormatError(f"the question is no ServerReflectionRequest: {error}") from error
        yield _answer(services, asked).SerializeToString()


def _answer(services: tuple[str, ...], asked: Any) -> Any:
    made = message("grpc.reflection.v1.ServerReflectionResponse")(valid_host=asked.host, original_request=asked)
    kind = asked.WhichOneof("message_request")
    try:
        if kind == "list_services":
            for name in services:
                made.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            file = pool().FindFileByName(asked.file_by_filename)
            made.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
        elif kind == "file_containing_symbol":
            file = _holding(asked.file_containing_symbol)
            made.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
        elif kind == "all_extension_numbers_of_type":
            made.all_extension_numbers_response.base_type_name = pool().FindMessageTypeByName(
                asked.all_extension_numbers_of_type
            ).full_name  # fmt: skip
        elif kind == "file_containing_extension":
            raise KeyError("no message of ours can be extended")
        else:
            made.error_response.error_code, made.error_response.error_message = _UNIMPLEMENTED, "not a question known"
    except KeyError as error:
        made.error_response.error_code, made.error_response.error_message = _NOT_FOUND, str(error)[:200]
    return made


def _holding(symbol: str) -> Any:
    """The file with a message or a service, or with what is in one.

    Raises
    ------
    KeyError : there is none.
    """
    try:
        return pool().FindFileContainingSymbol(symbol)
    except KeyError:  # protobuf does not find the calls of a service
        return pool().FindFileContainingSymbol(symbol.rpartition(".")[0])
