"""Making a server a member of a placement."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from runtime.chain.file_watch import FileWatch
from runtime.chain.member import ChainMember
from runtime.chain.neighbours import Identity, Neighbours, transport_of
from runtime.chain.placement_file import read_placement
from runtime.server.engine.engine import BundleEngine
from runtime.server.interface import Engine
from runtime.server.serving import ServeConfig


def as_member(
    config: ServeConfig, path: Path, name: str, identity: Identity
) -> tuple[ServeConfig, Callable[[BundleEngine], Engine]]:
    """A server's config with the placement's blocks, and what goes between its fronts and its engine.

    path : of the placement file, which is read again whenever it changes.
    name : ours in it. identity : who we are to the other members.

    Raises
    ------
    ConfigError : the placement has no member of that name. DataError, FormatError : it cannot be read.
    """
    placement = read_placement(path)
    placement.address(name)

    def wrap(engine: BundleEngine) -> Engine:
        neighbours = Neighbours(
            placement=placement, connect=lambda member: transport_of(member, identity), own_name=name, every_s=1.0
        )
        FileWatch(path, neighbours)
        return ChainMember(engine, name=name, neighbours=neighbours, metrics=engine.metrics)

    return dataclasses.replace(config, blocks=placement.blocks), wrap
