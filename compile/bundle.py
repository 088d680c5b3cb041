"""From a run directory to a bundle: every block of the tree compiled for every target, and a manifest of it all.

docs/bundle.md specifies what is written, `modeltree.manifest` checks it, `runtime.execution.bundle` reads it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from compile.atomic_folder import staged
from compile.block_cache import Facts, Kept, key_of, sha256, versions
from compile.targets import Target
from modeltree.errors import ConfigError, DataError, FormatError, unknown
from modeltree.files import inside
from modeltree.manifest import (
    MANIFEST_NAME,
    BlockEntry,
    FileEntry,
    LibraryEntry,
    Manifest,
    Provenance,
    Role,
    TargetEntry,
    VariantAccuracy,
    decode_manifest,
    encode_manifest,
    library_file,
    onnx_file,
    paths_of,
    roles_of,
    runtime_file,
)
from modeltree.tree import ModelTree, decode_tree

Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What does the work; `tools()` gives the real ones.

    load : a `.pt2` file's exported program.
    compile_block : (program, target, batch=, weights=, dump=) to a `compile.pipeline.CompiledBlock`.
    verify_block : (program, library's path, batch=, weights=) to the largest error against torch.
    vouch_block : (program, target, batch=, weights=) to the largest error of the target's stages as they run here.
    runtime_library : of a target, name and content; None where none is shipped.
    onnx_form : an exported program as ONNX.
    """

    load: Callable[[Path], Any]
    compile_block: Callable[..., Any]
    verify_block: Callable[..., float]
    vouch_block: Callable[..., float | None]
    runtime_library: Callable[[Target], tuple[str, bytes] | None]
    onnx_form: Callable[[Any], bytes]


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


def compile_run(
    run: Path,
    out: Path,
    wanted: Wanted,
    *,
    method: str = "",
    overwrite: bool = False,
    cache: Path | None = None,
    progress: Progress = lambda stage, done, total, text: None,
    measure: Callable[[Manifest, Path], Mapping[str, VariantAccuracy]] | None = None,
    tune: str | None = None,
    tools: Tools | None = None,
) -> Manifest:
    """Compile the tree of a finished run into the bundle `out`, which is there whole or not at all.

    Parameters
    ----------
    method : whose tree; the one that the search chose unless said.
    overwrite : replace a bundle that is there.
    cache : folder for compiled blocks and tuned tiles; with it an interrupted run goes on where it stopped.
    progress : called with stage, done, total and a text.
    tune : `rpc://host:port` of a device that times tiles for the targets that do not run here; those are compiled anew.
    measure : tells what kinds of weights are worth, given the manifest and the folder its files lie in.

    Raises
    ------
    ConfigError : not a run, contradictory targets, or `out` is not ours to replace.
    DataError : a file of the run cannot be read, or the disk refuses. FormatError : it is not what it should be.
    """
    tree = read_tree(run, method)
    roles = roles_of(tree)
    for name in roles:
        if not _program(run, name).exists():
            raise DataError(f"{_program(run, name)} is missing, and the tree names it: run the search again")
    with staged(out, overwrite=overwrite) as folder:
        writer = _Writer(
            run=run, folder=folder, wanted=wanted, kept=Kept(cache), tools=tools or real_tools(cache, tune), tune=tune
        )
        blocks = writer.blocks(roles, progress)
        manifest = Manifest(
            tree=tree, targets=writer.targets(), blocks=blocks, paths=paths_of(tree),
            provenance=_provenance(run, method, onnx=wanted.onnx),
        )  # fmt: skip
        if measure is not None:
            progress("compile", 1, 1, "accuracy")
            manifest = msgspec.structs.replace(manifest, variant_accuracy=dict(measure(manifest, folder)))
        data = encode_manifest(manifest)
        checked = decode_manifest(data, str(out / MANIFEST_NAME))
        writer.write(MANIFEST_NAME, data)
    return checked


def read_tree(run: Path, method: str = "") -> ModelTree:
    """The tree of a finished run: the one it chose, or that of a method.

    Raises
    ------
    ConfigError : not a run, not finished, or no such method. FormatError : not a tree. DataError : it cannot be read.
    """
    path = run / "tree.json"
    if not path.exists():
        unfinished = (run / "config.json").exists()
        what = "is not finished: pass --resume to nas search to go on" if unfinished else "is not a run directory: "
        raise ConfigError(f"{run} {what}" + ("" if unfinished else "pass what nas search wrote to --out"))
    if method:
        path = run / "methods" / f"{method}.json"
        known = sorted(one.stem for one in path.parent.glob("*.json"))
        if method not in known:
            raise unknown(f"method of {run}", method, known)
    return decode_tree(_read(path), str(path))


def executable_methods(run: Path) -> list[str]:
    """Names of a run's methods whose blocks are exported, sorted.

    Raises
    ------
    ConfigError : not a run, or one from before methods were exported.
    """
    read_tree(run)
    found = []
    for path in sorted((run / "methods").glob("*.json")):
        tree = decode_tree(_read(path), str(path))
        if all(node.handover is None or node.handover.block for node in tree.nodes):
            found.append(path.stem)
    if not found:
        raise ConfigError(f"{run} holds no methods: search again with this nas")
    return found


def real_tools(cache: Path | None, tune: str | None = None) -> Tools:
    """TVM, our linker, torch; each imported when first called, since that takes seconds and the cache may spare it.

    tune : `rpc://host:port` of a device that times tiles for targets that do not run here.
    """
    devices: dict[str, Any] = {}

    def device_for(target: Target) -> Any:
        if tune is None or target.runs_here:
            return None
        from compile.remote import RemoteDevice

        if target.name not in devices:
            devices[target.name] = RemoteDevice(tune, target)
        return devices[target.name]

    def load(path: Path) -> Any:
        from compile.program_file import read_program

        return read_program(path)

    def compile_block(program: Any, target: Target, **options: Any) -> Any:
        from compile.pipeline import compile_block as work
        from compile.tuning import TuningCache

        tiles = TuningCache(cache / "tiles.json" if cache else None)
        made = work(program, target, cache=tiles, device=device_for(target), **options)
        tiles.save()
        return made

    def verify_block(*args: Any, **options: Any) -> float:
        from compile.verify import verify_block as work

        return work(*args, **options)

    def vouch_block(*args: Any, **options: Any) -> float | None:
        from compile.vouch import vouched as work

        return work(*args, **options)

    def runtime_library(target: Target) -> tuple[str, bytes] | None:
        from compile.machine_code.linking import runtime_library as work

        return work(target)

    def onnx_form(program: Any) -> bytes:
        from compile.onnx_form import onnx_form as work

        return work(program)

    return Tools(
        load=load, compile_block=compile_block, verify_block=verify_block, vouch_block=vouch_block,
        runtime_library=runtime_library, onnx_form=onnx_form,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """Puts the files of one bundle into a folder."""

    run: Path
    folder: Path
    wanted: Wanted
    kept: Kept
    tools: Tools
    tune: str | None = None
    places: dict[tuple[str, str], str] = field(default_factory=dict)
    programs: dict[str, Any] = field(default_factory=dict)

    def blocks(self, roles: Mapping[str, tuple[Role, ...]], progress: Progress) -> dict[str, BlockEntry]:
        """Compile every block for whoever runs it."""
        total = sum(len(list(self.wanted.libraries(parts))) + self.wanted.onnx for parts in roles.values())
        done, found = 0, {}
        for block, parts in roles.items():
            digest = sha256(_read(_program(self.run, block)))
            libraries, facts = [], None
            for target, variant, batch in self.wanted.libraries(parts):
                progress("compile", done, total, f"{block[:8]} for {target.name}, {variant}")
                facts, entry = self.library(block, digest, target, variant, batch)
                libraries.append(entry)
                done += 1
            assert facts is not None
            onnx = None
            if self.wanted.onnx:
                progress("compile", done, total, f"{block[:8]} as ONNX")
                onnx = self.onnx(block, digest)
                done += 1
            found[block] = BlockEntry(
                roles=parts, in_shape=facts.in_shape, out_shape=facts.out_shape, libraries=tuple(libraries), onnx=onnx
            )
            self.programs.clear()
        progress("compile", total, total, "done")
        return found

    def library(
        self, block: str, digest: str, target: Target, variant: str, batch: int
    ) -> tuple[Facts, LibraryEntry]:  # fmt: skip
        """Compile a block once, or take it from the cache; run it against torch where that is possible."""
        key = key_of("library", block, digest, msgspec.to_builtins(target), variant, batch, versions())
        there = None if self.wanted.dump or (self.tune and not target.runs_here) else self.kept.get(key)
        facts, library = there or self.compiled(block, target, variant, batch)
        if self.wanted.verify and not target.runs_here and facts.vouched_error is None:
            vouched = self.tools.vouch_block(self.program(block), target, batch=batch, weights=variant)
            if vouched is not None:
                facts, there = msgspec.structs.replace(facts, vouched_error=float(vouched)), None
        file = self.place(library_file(target.name, block, variant=variant, batch=batch), library)
        if self.wanted.verify and target.runs_here and facts.max_abs_error is None:
            error = self.tools.verify_block(self.program(block), self.folder / file.file, batch=batch, weights=variant)
            facts, there = msgspec.structs.replace(facts, max_abs_error=float(error)), None
        if there is None:
            self.kept.put(key, facts, library)
        return facts, LibraryEntry(
            file=file.file, sha256=file.sha256, bytes=file.bytes, target=target.name, batch=batch, variant=variant,
            weight_bytes=facts.weight_bytes, workspace_bytes=facts.workspace_bytes, macs=facts.macs,
            max_abs_error=facts.max_abs_error, vouched_error=facts.vouched_error,
        )  # fmt: skip

    def compiled(self, block: str, target: Target, variant: str, batch: int) -> tuple[Facts, bytes]:
        """Have a block compiled."""
        dump = None
        if self.wanted.dump is not None:
            file = Path(library_file(target.name, block, variant=variant, batch=batch))
            dump = self.wanted.dump / file.relative_to("lib").with_suffix("")
        made = self.tools.compile_block(self.program(block), target, batch=batch, weights=variant, dump=dump)
        assert made.input_shape[0] == made.output_shape[0] == batch
        facts = Facts(
            sha256=sha256(made.library), in_shape=tuple(made.input_shape[1:]), out_shape=tuple(made.output_shape[1:]),
            weight_bytes=made.weight_bytes, workspace_bytes=made.workspace_bytes, macs=made.macs,
        )  # fmt: skip
        return facts, made.library

    def onnx(self, block: str, digest: str) -> FileEntry:
        """The ONNX form of a block, written once."""
        key = key_of("onnx", block, digest, versions(onnx=True))
        model = self.kept.get_onnx(key)
        if model is None:
            model = self.tools.onnx_form(self.program(block))
            self.kept.put_onnx(key, model)
        return self.place(onnx_file(block), model)

    def targets(self) -> dict[str, TargetEntry]:
        """The records of the targets that got a library, their runtime libraries written."""
        found = {}
        for name, target in self.wanted.by_name.items():
            if not (self.folder / "lib" / name).is_dir():  # for the cloud, and the tree hands nothing over
                continue
            runtime = self.tools.runtime_library(target)
            found[name] = TargetEntry(
                roles=self.wanted.roles[name], variants=tuple(dict.fromkeys(self.wanted.variants)),
                batches=tuple(dict.fromkeys(self.wanted.batches)), record=msgspec.to_builtins(target),
                runtime=None if runtime is None else self.place(runtime_file(name, runtime[0]), runtime[1]),
            )  # fmt: skip
        return found

    def program(self, block: str) -> Any:
        """The exported block, read once for all its libraries."""
        if block not in self.programs:
            path = _program(self.run, block)
            try:
                self.programs[block] = self.tools.load(path)
            except Exception as error:  # torch raises many unrelated types
                raise DataError(f"{path} is not an exported program: run the search again") from error
        return self.programs[block]

    def place(self, file: str, data: bytes) -> FileEntry:
        """Write a file unless its folder holds the same content already; where it lies then."""
        digest = sha256(data)
        folder = str(Path(file).parent)
        if (folder, digest) not in self.places:
            self.write(file, data)
            self.places[folder, digest] = file
        return FileEntry(file=self.places[folder, digest], sha256=digest, bytes=len(data))

    def write(self, file: str, data: bytes) -> None:
        """Write a file into the folder, which is flushed as a whole at the end."""
        path = self.folder / file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise DataError(
                f"cannot write {path}: {error.strerror or error}: free some space or choose another folder"
            ) from error


def _provenance(run: Path, method: str, *, onnx: bool) -> Provenance:
    """What the run says of itself, and what compiled it."""
    made_with = versions() | (versions(onnx=True) if onnx else {})
    path = run / "summary.json"
    if not path.exists():
        return Provenance(method=method, compiled_with=made_with)
    try:
        summary = json.loads(_read(path))
        told = summary.get("provenance") or {}
        return msgspec.convert(
            {
                "config": summary.get("config") or {},
                "method": method,
                "searched_with": told.get("versions", {}),
                "compiled_with": made_with,
            }
            | {name: told[name] for name in ("commit", "machine", "date") if name in told},
            Provenance,
        )
    except (ValueError, AttributeError, RecursionError) as error:  # msgspec's ValidationError is a ValueError
        raise FormatError(f"{path} is not a run's summary: {error}: run the search again") from error


def _program(run: Path, block: str) -> Path:
    return inside(run / "blocks", f"{block}.pt2")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}: check its permissions") from error
