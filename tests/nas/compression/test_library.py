"""Distillation, and a library that is built once whatever interrupts it."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from networks import INPUT, TINY, build, images, tiny
from safetensors import safe_open
from safetensors.torch import load_file

from modeltree.errors import ConfigError, DataError
from nas.compression.accuracy import measure_compositions, top1
from nas.compression.distillation import DistilConfig, distil, relative_error
from nas.compression.features import write_features
from nas.compression.library import Choice, library_folder
from nas.jobs.executors import ProcessExecutor, SerialExecutor, executor
from transforms import compose, technique

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    return folder, build(folder)


def stamps(library):
    return {path.name: path.stat().st_mtime_ns for path in library.folder.glob("*.safetensors")}


def contents(library):
    """Weights of every variant; the time that a record says it took does not count."""
    return {
        path.name: {key: value.numpy().tobytes() for key, value in load_file(path).items()}
        for path in sorted(library.folder.glob("*.safetensors"))
    }


def timeless(library):
    return {key: dataclass_like(record) for key, record in library.records.items()}


def dataclass_like(record):
    return {name: getattr(record, name) for name in record.__struct_fields__ if name != "seconds"}


def unit_features(index, count=64, seed=0):
    """What the base feeds a unit and what it makes of it."""
    unit = tiny().units[index]
    place = {u: s for s in range(5) for u in [tiny().spec.items[tiny().spec.segments[s][0]].unit]}[index]
    with torch.no_grad():
        inputs = tiny().between(0, place)(images(count, seed)[0])
        return unit, inputs, unit.module()(inputs)


@pytest.mark.parametrize(("index", "choice"), [(1, ("prune", 0.25)), (1, ("mobilenet", 1.0)), (3, ("svd", 0.125))])
@pytest.mark.parametrize("lr", [3e-3, 1e3])
def test_distillation_never_ends_worse_than_it_began(index, choice, lr):
    unit, inputs, targets = unit_features(index)
    _, *held = unit_features(index, seed=1)
    start = technique(choice[0]).apply(unit, choice[1])
    before = {key: value.clone() for key, value in start.state_dict().items()}
    made, error = distil(start, inputs, targets, held, dataclasses.replace(TINY, steps=20, lr=lr))
    assert error == relative_error(made, *held) <= relative_error(start, *held)
    assert all(torch.equal(value, before[key]) for key, value in start.state_dict().items())
    assert (made is start) == (lr == 1e3)
    assert not made.training


def test_distillation_learns_and_is_repeatable():
    unit, inputs, targets = unit_features(1)
    start = technique("mobilenet").apply(unit, 1.0)
    config = DistilConfig(steps=60, batch_size=32)
    one, error = distil(start, inputs, targets, (inputs, targets), config)
    torch.rand(3)
    two, again = distil(start, inputs, targets, (inputs, targets), config)
    assert error == again < 0.9 * relative_error(start, inputs, targets)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))


def test_a_relative_error_of_one_is_as_good_as_the_mean():
    targets = torch.randn(300, 4)
    mean = torch.nn.Linear(3, 4)
    with torch.no_grad():
        mean.weight.zero_()
        mean.bias.fill_(targets.mean())
    assert relative_error(mean, torch.randn(300, 3), targets) == pytest.approx(1.0, abs=1e-3)


def test_features_are_what_the_network_computes(tmp_path):
    pixels, _ = images(200)
    counts = {tiny().units[1].source: 130, "linear_1": 200}
    features = write_features(tiny(), pixels, counts, tmp_path / "f")
    with torch.no_grad():
        assert torch.allclose(features["linear_1"], tiny().graph(pixels), atol=1e-6)
        assert torch.allclose(features[tiny().units[1].source], tiny().between(0, 1)(pixels[:130]), atol=1e-6)


def test_a_library_holds_what_applies_and_says_why_the_rest_does_not(built):
    _, library = built
    assert {(u, str(c)) for u, c in library.records if u == 3} == {(3, "svd@0.25"), (3, "svd@0.125"), (3, "gap")}
    assert library.declined.keys().isdisjoint(library.records)
    assert len(library.records) + len(library.declined) == 5 * (2 + 1 + 4)
    assert "linear layer" in library.declined[3, Choice("prune", 0.5)]
    assert not list((library.folder / "scratch").iterdir())


def test_records_say_what_their_variants_do(built):
    _, library = built
    probe, labels = images(32, seed=1)
    base = tiny().graph
    with torch.no_grad():
        truth = base(probe)
        for (index, choice), record in library.records.items():
            whole = compose(tiny(), 0, 5, library.variants(tiny(), {index: choice}))
            logits = whole(probe)
            assert record.logit_error == pytest.approx(float((logits - truth).square().mean() / truth.var()), rel=1e-3)
            assert record.drop == pytest.approx(top1(base, probe, labels) - top1(whole, probe, labels), abs=1e-4)
            assert record.choice == choice
            assert (record.kept > 0) == (choice.technique == "prune")


def test_a_second_build_distils_nothing(built):
    folder, library = built
    before = stamps(library)
    told = []
    again = build(folder, progress=lambda done, total, text: told.append((done, total)))
    assert stamps(again) == before
    assert again.records == library.records
    assert told == [(15, 15)]


def test_more_techniques_leave_those_that_are_there_alone(tmp_path):
    first = build(tmp_path, names=("svd",))
    before = stamps(first)
    more = build(tmp_path, names=("svd", "gap"))
    assert len(more.records) == 4
    assert before.items() <= stamps(more).items()


class Stops:
    """A serial executor that breaks off after some tasks in all, as a killed process does."""

    def __init__(self, after):
        self.left = after

    def run(self, setup, work, context, tasks):
        for result in SerialExecutor().run(setup, work, context, tasks):
            self.left -= 1
            yield result
            if not self.left:
                raise KeyboardInterrupt


def settled_in(folder):
    """Times of the files of variants that need no more work."""
    stamps = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            if json.loads(file.metadata()["record"])["settled"]:
                stamps[path.name] = path.stat().st_mtime_ns
    return stamps


@pytest.mark.parametrize("after", [3, 19])
def test_an_interrupted_build_goes_on_and_ends_the_same(built, tmp_path, after):
    _, whole = built
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, executor=Stops(after))
    begun = settled_in(tmp_path / "library")
    assert len(list((tmp_path / "library").glob("*.safetensors"))) == min(after, 15)
    told = {"closed forms": [], "variants": []}
    library = build(tmp_path, progress=lambda done, total, text: told[text].append(done))
    assert told["closed forms"] == ([] if after > 15 else list(range(after, 16)))
    assert told["variants"] == list(range(told["variants"][0], 16))
    assert told["variants"][0] >= len(begun)
    assert begun.items() <= stamps(library).items()
    assert contents(library) == contents(whole)
    assert timeless(library) == timeless(whole)
    assert torch.get_num_threads() == 1


def test_a_build_sweeps_what_dead_processes_left_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    scratch = tmp_path / "library" / "scratch"
    for name in (f"{dead.pid}-left", f"{os.getpid()}-at-work", "notes"):
        (scratch / name / "fit").mkdir(parents=True)
    seen = []

    class Looks(SerialExecutor):
        def run(self, setup, work, context, tasks):
            seen.append({path.name for path in scratch.iterdir()})
            yield from super().run(setup, work, context, tasks)

    build(tmp_path, names=("gap",), executor=Looks())
    assert seen
    for names in seen:
        (own,) = names - {f"{os.getpid()}-at-work", "notes"}
        assert own.split("-")[0] == str(os.getpid())
    assert {path.name for path in scratch.iterdir()} == {f"{os.getpid()}-at-work", "notes"}


@pytest.mark.parametrize("spoil", ["truncated", "empty", "garbage", "other record"])
def test_a_damaged_variant_is_distilled_again(built, tmp_path, spoil):
    from safetensors.torch import save_file

    library = build(tmp_path, names=("svd",))
    good = contents(library)
    path = library.folder / "003_svd_0.25.safetensors"
    data = path.read_bytes()
    if spoil == "other record":
        save_file(load_file(path), path, metadata={"record": '{"unit": 3, "colour": "red"}'})
    else:
        path.write_bytes({"truncated": data[:-10], "empty": b"", "garbage": b"x" * 100}[spoil])
    told = []
    again = build(tmp_path, names=("svd",), progress=lambda done, total, text: told.append((done, text)))
    assert told[:2] == [(2, "closed forms"), (3, "closed forms")]
    assert told[-1] == (3, "variants")
    assert contents(again) == good


def test_a_variant_that_went_missing_is_told(tmp_path):
    library = build(tmp_path, names=("gap",))
    (path,) = library.folder.glob("*.safetensors")
    path.write_bytes(b"gone")
    with pytest.raises(DataError, match=r"003_gap_1\.safetensors cannot be read .*delete it and run again"):
        library.variant(tiny(), 3, Choice("gap", 1.0))


def test_another_seed_or_network_has_another_folder(tmp_path):
    folders = {
        library_folder(tmp_path, base, data, DistilConfig(seed=seed))
        for base in "ab" for data in "cd" for seed in (0, 1)
    }  # fmt: skip
    assert len(folders) == 8
    assert library_folder(tmp_path, "a", "c", DistilConfig()) in folders


@pytest.mark.slow
def test_processes_make_the_same_bytes(built, tmp_path):
    _, whole = built
    library = build(tmp_path, executor=ProcessExecutor(2))
    assert contents(library) == contents(whole)
    assert timeless(library) == timeless(whole)


def test_compositions_are_measured_in_the_order_they_were_given(built):
    folder, library = built
    probe, labels = images(32, seed=1)
    plans = [{}, {1: Choice("prune", 0.125), 2: Choice("prune", 0.5)}, {3: Choice("gap", 1.0)}]
    found = measure_compositions(folder / "base.pt2", library, plans, probe, labels, SerialExecutor())
    for plan, accuracy in zip(plans, found):
        whole = compose(tiny(), 0, 5, library.variants(tiny(), plan))
        with torch.no_grad():
            right = (whole(probe).argmax(1).numpy() == labels).mean()
        assert accuracy == pytest.approx(100 * right)


def fails(state, task):
    """Not a lambda: worker processes must find it."""
    if task == 2:
        raise DataError("task 2 cannot be done: leave it out")
    return state * task


def times_ten(context):
    return 10 * context


@pytest.mark.parametrize("name", ["serial", "processes"])
def test_an_error_in_a_task_is_raised_here(name):
    with pytest.raises(DataError, match=r"^task 2 cannot be done: leave it out$"):
        list(executor(name, 2).run(times_ten, fails, 1, [0, 1, 2, 3]))


@pytest.mark.parametrize("name", ["serial", "processes"])
def test_an_executor_gives_every_result_with_its_index(name):
    assert sorted(executor(name, 2).run(times_ten, fails, 1, [5, 6, 7])) == [(0, 50), (1, 60), (2, 70)]
    assert list(executor(name, 2).run(times_ten, fails, 1, [])) == []


def test_an_unknown_executor_lists_the_known():
    with pytest.raises(ConfigError, match="unknown executor 'cluster': known are processes, serial"):
        executor("cluster", 2)
    with pytest.raises(ConfigError, match="workers is 0"):
        executor("processes", 0)


def test_inputs_have_the_shape_that_units_say():
    _, inputs, targets = unit_features(2, count=2)
    assert inputs.shape == (2, *tiny().units[2].in_shape)
    assert targets.shape == (2, *tiny().units[2].out_shape)
    assert tuple(np.array(INPUT)) == tiny().spec.input_shape
