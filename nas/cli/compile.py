"""`nas compile`: turn a finished run into a bundle that a device can run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compile.targets import target_names

if TYPE_CHECKING:
    from modeltree.manifest import Manifest, VariantAccuracy

_TARGETS = f"One of {', '.join(target_names())}, or a target's file.json; may be given again"


def compile_tree(
    run: Annotated[Path, typer.Argument(help="A run directory")],
    out: Annotated[Path, typer.Option(help="The bundle's folder")],
    method: Annotated[
        list[str] | None,
        typer.Option(help="Whose tree: device_only, cloud_jpeg, surgery, branch, tree. Again, or all: a bundle each, "
                     "in folders of their names below --out. The one that the search chose unless said"),
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help=f"{_TARGETS}. host unless said")] = None,
    cloud_target: Annotated[
        list[str] | None, typer.Option(help="What the cloud runs its part on, likewise. host unless said")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="f32, bf16, int8, bf16-dot or int8-dot; may be given again. f32 unless said"),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Images at a time; may be given again. 1 unless said")
    ] = None,
    measure: Annotated[
        int, typer.Option(min=0, help="Test images to measure each kind of weights on, where it runs here")
    ] = 0,
    tune: Annotated[
        str | None,
        typer.Option(help="rpc://host:port of a device to time kernels on, for targets that do not run here; or none: "
                     "time nothing, which compiles sooner and runs slower here"),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write every block as ONNX too")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there")] = False,
    cache: Annotated[Path | None, typer.Option(help="Compiled blocks; ~/.cache/nas/compiled unless said")] = None,
    dump: Annotated[Path | None, typer.Option(help="Folder for the program after each phase of the compiler")] = None,
    verify: Annotated[bool, typer.Option(help="Run what runs here against torch")] = True,
) -> None:  # fmt: skip
    """Compile every block of a run's tree for devices and cloud. Interrupted, it goes on when started again."""
    from compile.bundle import Wanted, compile_run, executable_methods
    from compile.targets import load_target
    from nas.cli.display.progress import stages
    from nas.cli.search import default_cache
    from nas.cli.show import print_libraries

    wanted = Wanted(
        targets=[load_target(name) for name in target or ["host"]],
        cloud_targets=[load_target(name) for name in cloud_target or ["host"]],
        variants=weights or ["f32"], batches=batch or [1], onnx=onnx, verify=verify, dump=dump,
    )  # fmt: skip
    cache = cache or default_cache() / "compiled"

    def accuracy(manifest: "Manifest", folder: Path) -> "dict[str, VariantAccuracy]":
        from nas.bench.weight_formats import measured_variants, test_part

        dataset, judge = test_part(run, default_cache())
        return measured_variants(manifest, folder, dataset, measure, judge)

    methods = method or [""]
    if "all" in methods:
        methods = executable_methods(run)
    for one in methods:
        folder = out if len(methods) == 1 else out / one
        with stages(quiet=False) as progress:
            manifest = compile_run(
                run, folder, wanted, method=one, overwrite=force, cache=cache, progress=progress, tune=tune,
                measure=accuracy if measure else None,
            )  # fmt: skip
        print_libraries(folder, manifest)
    print(f"Copy {out} to the device. There, and here: nas show {folder} --verify")
