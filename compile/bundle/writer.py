"""The files of a bundle, one after the other: libraries, ONNX forms, runtime libraries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from compile.bundle.block_cache import Facts, Kept, key_of, sha256, versions
from compile.bundle.run_files import program_path, read_bytes
from compile.bundle.tools import RECKONED, Tools
from compile.bundle.wanted import Wanted
from compile.targets import Target
from modeltree.errors import DataError
from modeltree.manifest import (
    BlockEntry,
    FileEntry,
    LibraryEntry,
    Role,
    TargetEntry,
    library_file,
    onnx_file,
    runtime_file,
)

Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Puts the files of one bundle into a folder.

    formats : block -> the number format that the tree computes it in; variant `f32` is compiled so.
    """

    run: Path
    folder: Path
    wanted: Wanted
    kept: Kept
    tools: Tools
    tune: str | None = None
    formats: Mapping[str, str] = field(default_factory=dict)
    places: dict[tuple[str, str], str] = field(default_factory=dict)
    programs: dict[str, Any] = field(default_factory=dict)

    def blocks(self, roles: Mapping[str, tuple[Role, ...]], progress: Progress) -> dict[str, BlockEntry]:
        """Compile every block for whoever runs it."""
        total = sum(len(list(self.wanted.libraries(parts))) + self.wanted.onnx for parts in roles.values())
        done, found = 0, {}
        for block, parts in roles.items():
            digest = sha256(read_bytes(program_path(self.run, block)))
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
        weights = self.formats.get(block, "f32") if variant == "f32" else variant
        reckoned = (RECKONED,) if self.tune == RECKONED and target.runs_here else ()
        key = key_of("library", block, digest, msgspec.to_builtins(target), weights, batch, versions(), *reckoned)
        elsewhere = self.tune not in (None, RECKONED) and not target.runs_here
        there = None if self.wanted.dump or elsewhere else self.kept.get(key)
        facts, library = there or self.compiled(block, target, variant, weights, batch)
        if self.wanted.verify and not target.runs_here and facts.vouched_error is None:
            vouched = self.tools.vouch_block(self.program(block), target, batch=batch, weights=weights)
            if vouched is not None:
                facts, there = _deviating(facts, "vouched_error", vouched), None
        file = self.place(library_file(target.name, block, variant=variant, batch=batch), library)
        if self.wanted.verify and target.runs_here and facts.max_abs_error is None:
            error = self.tools.verify_block(self.program(block), self.folder / file.file, batch=batch, weights=weights)
            facts, there = _deviating(facts, "max_abs_error", error), None
        if there is None:
            self.kept.put(key, facts, library)
        return facts, LibraryEntry(
            file=file.file, sha256=file.sha256, bytes=file.bytes, target=target.name, batch=batch, variant=variant,
            weight_bytes=facts.weight_bytes, workspace_bytes=facts.workspace_bytes, macs=facts.macs,
            max_abs_error=facts.max_abs_error, vouched_error=facts.vouched_error, relative_error=facts.relative_error,
            number_format=weights if weights != variant else "",
        )  # fmt: skip

    def compiled(self, block: str, target: Target, variant: str, weights: str, batch: int) -> tuple[Facts, bytes]:
        """Have a block compiled; `weights` is what the variant means for it."""
        dump = None
        if self.wanted.dump is not None:
            file = Path(library_file(target.name, block, variant=variant, batch=batch))
            dump = self.wanted.dump / file.relative_to("lib").with_suffix("")
        made = self.tools.compile_block(self.program(block), target, batch=batch, weights=weights, dump=dump)
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
            path = program_path(self.run, block)
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


def _deviating(facts: Facts, kind: str, deviation: Any) -> Facts:
    """With what a comparison with torch brought; `kind` says of what."""
    largest, relative = (float(error) for error in deviation)
    return msgspec.structs.replace(facts, **{kind: largest, "relative_error": relative})
