"""Message classes made from what protoc makes of our .proto files, in a descriptor pool of their own.

A pool of their own, because protobuf's default one refuses a second `inference.ModelInferRequest`, and a client such as
tritonclient in the same process brings one. Classes are made when they are first asked for, and not by protoc, because
generated code is tied to the major version of protobuf that it was generated for. `make protocol` writes the
descriptors, whose bytes are the same for every version.
"""

import functools
import importlib
from importlib import resources
from typing import Any

from modeltree.errors import ConfigError

PROTOS = ("inference.proto", "health.proto", "reflection.proto")
DESCRIPTORS = "descriptors.binpb"


@functools.cache
def message(name: str) -> Any:
    """The class of a message by its full name, as `inference.ModelInferRequest`.

    Raises
    ------
    ConfigError : protobuf is not installed.
    """
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(pool().FindMessageTypeByName(name))


def require_grpc() -> None:
    """Raise where the packages for gRPC are not there.

    Raises
    ------
    ConfigError : says what to install, and what works without.
    """
    for name in ("grpc", "google.protobuf"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"gRPC needs the packages grpcio and protobuf ({error}): pip install 'nas-modeltree[cloud]', "
                "or use http:// or https://, which need nothing"
            ) from error


@functools.cache
def pool() -> Any:
    """The descriptors of all our messages and services."""
    require_grpc()
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.protobuf.descriptor_pool import DescriptorPool

    made = DescriptorPool()
    for file in FileDescriptorSet.FromString(resources.files(__package__).joinpath(DESCRIPTORS).read_bytes()).file:
        made.Add(file)
    return made
