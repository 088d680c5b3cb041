"""Message classes made from our .proto files when they are first asked for, in a descriptor pool of their own.

A pool of their own, because protobuf's default one refuses a second `inference.ModelInferRequest`, and a client such as
tritonclient in the same process brings one. Made here, and not by protoc, because generated code is tied to the major
version of protobuf that it was generated for.
"""

import functools
import importlib
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

from modeltree.errors import ConfigError

PROTOS = ("inference.proto", "health.proto")
_TOKEN = re.compile(r'//[^\n]*|"[^"]*"|[\w.]+|\S')
_SCALARS = ("double", "float", "int64", "uint64", "int32", "", "", "bool", "string", "", "", "bytes", "uint32")
"""Ordered as in descriptor.proto, from 1 on; those that we do not use left empty."""
_MESSAGE, _OPTIONAL, _REPEATED = 11, 1, 3


@functools.cache
def message(name: str) -> Any:
    """The class of a message by its full name, as `inference.ModelInferRequest`.

    Raises
    ------
    ConfigError : protobuf is not installed.
    """
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(_pool().FindMessageTypeByName(name))


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
def _pool() -> Any:
    require_grpc()
    from google.protobuf.descriptor_pool import DescriptorPool

    pool = DescriptorPool()
    for name in PROTOS:
        pool.Add(file_descriptor(name, resources.files(__package__).joinpath(name).read_text("utf-8")))
    return pool


def file_descriptor(name: str, text: str) -> Any:
    """What protoc would make of the messages in a .proto file; of the language, only what our files use.

    Raises
    ------
    ConfigError : something else; names the place.
    """
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    tokens = iter([token for token in _TOKEN.findall(text) if not token.startswith("//")])
    file = FileDescriptorProto(name=name, syntax="proto3")
    for token in tokens:
        if token == "syntax":
            _take(tokens, "=", '"proto3"', ";")
        elif token == "package":
            file.package = next(tokens)
            _take(tokens, ";")
        elif token == "message":
            _message(tokens, file.message_type.add())
        elif token == "service":
            _skip_service(tokens)
        else:
            raise ConfigError(f"{name} has {token!r} at its top: only syntax, package, message and service are read")
    return file


def _message(tokens: Iterator[str], made: Any) -> None:
    made.name = next(tokens)
    _take(tokens, "{")
    for token in tokens:
        if token == "}":
            return
        if token == "message":
            _message(tokens, made.nested_type.add())
        elif token == "oneof":
            made.oneof_decl.add(name=next(tokens))
            _take(tokens, "{")
            while (kind := next(tokens)) != "}":
                _field(tokens, made, kind).oneof_index = len(made.oneof_decl) - 1
        elif token == "map":
            _map(tokens, made)
        elif token == "repeated":
            _field(tokens, made, next(tokens)).label = _REPEATED
        else:
            _field(tokens, made, token)


def _field(tokens: Iterator[str], made: Any, kind: str) -> Any:
    field = made.field.add(name=next(tokens), label=_OPTIONAL)
    _take(tokens, "=")
    field.number = int(next(tokens))
    _take(tokens, ";")
    _set_type(field, kind)
    return field


def _map(tokens: Iterator[str], made: Any) -> None:
    """`map<string, V>` is a repeated message of a nested type, marked as an entry."""
    _take(tokens, "<", "string", ",")
    value = next(tokens)
    _take(tokens, ">")
    name = next(tokens)
    _take(tokens, "=")
    entry = made.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
    entry.options.map_entry = True
    _set_type(entry.field.add(name="key", number=1, label=_OPTIONAL), "string")
    _set_type(entry.field.add(name="value", number=2, label=_OPTIONAL), value)
    _set_type(made.field.add(name=name, number=int(next(tokens)), label=_REPEATED), entry.name)
    _take(tokens, ";")


def _set_type(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS.index(kind) + 1
    else:
        field.type, field.type_name = _MESSAGE, kind


def _skip_service(tokens: Iterator[str]) -> None:
    depth = 0
    for token in tokens:
        depth += (token == "{") - (token == "}")
        if token == "}" and not depth:
            return


def _take(tokens: Iterator[str], *expected: str) -> None:
    for one in expected:
        if (found := next(tokens, "the end")) != one:
            raise ConfigError(f"a .proto file has {found!r}: it must have {one!r} there")
