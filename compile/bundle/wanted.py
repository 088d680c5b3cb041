"""What a bundle shall hold, and whether that goes together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compile.targets import Target
from modeltree.errors import ConfigError
from modeltree.manifest import Role


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a bundle shall hold.

    targets : get every block and rest. cloud_targets : get the rests.
    variants : kinds of weights. batches : sizes that libraries are made for.
    onnx : whether every block is written as ONNX too.
    verify : whether every library is run against torch; where it does not run here, its twin (`compile.vouch`).
    dump : folder for what the compiler has in hand after each phase, TARGET/BLOCK below it; then nothing is taken from
        the cache.
    """

    targets: Sequence[Target]
    cloud_targets: Sequence[Target] = ()
    variants: Sequence[str] = ("f32",)
    batches: Sequence[int] = (1,)
    onnx: bool = False
    verify: bool = True
    dump: Path | None = None
    roles: dict[str, tuple[Role, ...]] = field(init=False, default_factory=dict)
    by_name: dict[str, Target] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not self.targets or not self.variants or not self.batches:
            raise ConfigError("nothing to compile: pass at least one target, one kind of weights and one batch size")
        if any(batch < 1 for batch in self.batches):
            raise ConfigError(f"batch sizes are {list(self.batches)}: each must be at least 1")
        whose: tuple[tuple[tuple[Role, ...], Sequence[Target]], ...] = (
            (("device", "rest"), self.targets), (("rest",), self.cloud_targets),
        )  # fmt: skip
        for roles, targets in whose:
            for target in targets:
                if self.by_name.setdefault(target.name, target) != target:
                    raise ConfigError(f"two targets are called {target.name}: give one of them another name")
                self.roles.setdefault(target.name, roles)

    def libraries(self, roles: Sequence[Role]) -> Iterator[tuple[Target, str, int]]:
        """Target, kind of weights and batch of every library that a block of these roles gets."""
        for name, target in self.by_name.items():
            if set(roles) & set(self.roles[name]):
                for variant in dict.fromkeys(self.variants):
                    for batch in dict.fromkeys(self.batches):
                        yield target, variant, batch
