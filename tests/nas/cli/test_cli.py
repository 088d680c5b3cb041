"""The command line: whatever the user can mend is one line, status 2, and leaves nothing behind."""

import itertools
import json
import subprocess
import sys

import pytest
import torch

from nas.bases import build, save_weights
from nas.cli import main
from nas.config import SearchConfig, encode_config

NETWORK = """
from torch import nn

def tiny():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 10),
    )

def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 7))

def grey():
    return nn.Sequential(nn.Conv2d(1, 8, (16, 24)), nn.ReLU(), nn.Flatten(), nn.Linear(8, 10))

class Asked(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.head, self.words = kind, nn.Linear(3 * 16 * 16, 10), nn.Embedding(9, 10)

    def forward(self, x, *more):
        if self.kind == "words":
            return self.words(x).mean(1)
        y = self.head(x.flatten(1))
        if self.kind == "decides" and y.sum() > 0:
            return -y
        return (y / 0.0 - y / 0.0) if self.kind == "not_finite" else {"y": y, "z": y[:, :2]}

class Pair(Asked):
    def forward(self, x, scale):
        return super().forward(x) * scale

def words():
    return Asked("words")

def decides():
    return Asked("decides")

def not_finite():
    return Asked("not_finite")

def pair():
    return Pair("")

def heads():
    return Asked("")

def odd():
    return nn.Sequential(nn.Flatten(), nn.Linear(11, 10))
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def nas(nas):
    """Run `nas` in this process; returns (status, lines on standard output, lines on standard error)."""

    def call(*words):
        status, printed, errors = nas(*words)
        return status, printed.splitlines(), errors

    return call


@pytest.fixture
def base(tmp_path):
    (tmp_path / "model.py").write_text(NETWORK)
    return f"{tmp_path / 'model.py'}:tiny"


def written(path, text):
    path.write_text(text)
    return path


def refused(nas, tmp_path, *words, why, quiet=True):
    """The command ends with one line that says why; no run is left."""
    out = tmp_path / "out"
    status, told, error = nas("search", "--out", out, "--workers", 1, "--executor", "serial", *words)
    assert status == 2
    assert told == []
    assert len(error) == 1, error
    assert error[0].startswith("nas: ")
    assert why in error[0]
    assert not out.exists()
    if quiet:
        assert not (tmp_path / "cache" / "library").exists()


UNKNOWN = {
    "base": (("--base", "vgg12"), "unknown base network 'vgg12': known are alexnet, alexnet_exits, "),
    "device": (("--device", "toaster"), "unknown device profile 'toaster': known are cloud_cpu, cloud_gpu, phone, pi"),
    "cloud": (("--cloud", "sky"), "unknown device profile 'sky': known are "),
    "trace": (("--trace", "5g"), "'5g': known are 4g_"),
    "method": (("--method", "guess"), "unknown method 'guess': known are branch, egreedy, random, surgery, tree"),
    "technique": (("--technique", "magic"), "unknown technique 'magic': known are fire, gap, "),
    "data": (("--data", "mnist"), "unknown data set 'mnist': known are cifar10:DIR, digits, imagefolder:DIR"),
    "executor": (("--executor", "cluster"), "unknown executor 'cluster': known are processes, serial"),
    "forks": (("--forks", "spoon"), "unknown forks 'spoon': known are independent, markov"),
    "distillation": (("--distillation", "none"), "unknown distillation 'none': known are block, branch"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNKNOWN)
def test_an_unknown_name_lists_the_known(nas, tmp_path, what):
    words, why = UNKNOWN[what]
    refused(nas, tmp_path, *words, why=why)


OUT_OF_RANGE = {
    "K": (("--K", 0), "K is 0: it must be at least 1"),
    "N": (("--N", 0), "N is 0: it must be at least 1"),
    "budget": (("--budget", 0), "budget is 0"),
    "workers": (("--workers", 0), "workers is 0"),
    "seed": (("--seed", -1), "seed is -1"),
    "rtt": (("--rtt-ms", "nan"), "rtt-ms is nan"),
    "finetune_steps": (("--finetune-steps", -1), "finetune_steps is -1"),
    "image size": (("--image-size", 4), "image size is 4"),
    "data folder": (("--data", "imagefolder:"), "must name a folder"),
}


@pytest.mark.parametrize("what", OUT_OF_RANGE)
def test_a_number_out_of_range_says_the_range(nas, tmp_path, what):
    words, why = OUT_OF_RANGE[what]
    refused(nas, tmp_path, *words, why=why)


@pytest.mark.parametrize("weights", [True, False])
def test_more_blocks_than_cuts_are_refused_before_anything_is_trained(nas, tmp_path, base, weights):
    words = ["--base", base, "--image-size", 16, "--N", 99]
    if weights:
        path = tmp_path / "w.safetensors"
        save_weights(build(base, num_classes=10, image_size=16), path)
        words += ["--weights", path]
    refused(nas, tmp_path, *words, why="N is 99 but the network can be cut into 1 to 3 blocks")
    assert not (tmp_path / "cache" / "bases").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no rows"),
        ("time_s,bandwidth_mbps\n0,nan\n1,2\n", "trace.csv"),
        ("time_s,bandwidth_mbps\n0,5\n1,-2\n", "trace.csv"),
        ("time_s,bandwidth_mbps\n0,0\n1,0\n", "bandwidth is 0 in every row"),
        ("hello\n", "trace.csv"),
    ],
)
def test_a_trace_that_is_none_is_refused(nas, tmp_path, text, why):
    refused(nas, tmp_path, "--trace", written(tmp_path / "trace.csv", text), why=why)


def test_a_profile_that_is_none_is_refused(nas, tmp_path):
    refused(nas, tmp_path, "--device", written(tmp_path / "p.json", "{"), why="p.json is not a device profile")
    refused(nas, tmp_path, "--device", tmp_path / "none.json", why="cannot read profile")


def test_weights_that_do_not_fit_are_refused(nas, tmp_path, base):
    words = ("--base", base, "--image-size", 16, "--weights", tmp_path / "w.safetensors")
    refused(nas, tmp_path, *words, why="pass an existing .safetensors or .pth file")
    save_weights(torch.nn.Linear(3, 4), tmp_path / "w.safetensors")
    refused(nas, tmp_path, *words, why="does not fit the network: missing 0.bias")
    (tmp_path / "w.safetensors").write_text("pickle")
    refused(nas, tmp_path, *words, why="pass a whole .safetensors file")


def test_images_that_are_none_are_refused(nas, tmp_path, base):
    words = ("--base", base, "--image-size", 16, "--data", f"imagefolder:{tmp_path / 'images'}")
    refused(nas, tmp_path, *words, why="must hold train/ and val/ or test/")
    for part, digit in itertools.product(("train", "test"), "0123456789"):
        (tmp_path / "images" / part / digit).mkdir(parents=True)
    refused(nas, tmp_path, *words, why="holds no image")


@pytest.mark.parametrize(
    ("name", "why"),
    [("none", "defines no function 'none'"), ("wide", "must give (2, 10)"), ("odd", "does not run on images")],
)
def test_a_network_that_does_not_fit_is_refused(nas, tmp_path, base, name, why):
    refused(nas, tmp_path, "--base", base.replace(":tiny", f":{name}"), "--image-size", 16, why=why)


@pytest.mark.parametrize(
    ("name", "words", "why"),
    [
        ("words", (), "a network of token ids cannot be searched"),
        ("pair", (), "it takes x, scale, but must take one tensor, pictures: wrap it"),
        ("decides", ("--weights", "factory"), "the network decides by the values of a tensor"),
        ("not_finite", ("--weights", "factory"), "with numbers that are not finite: look for a division by zero"),
        ("heads", (), "gives y [10], z [2], which nas cannot train: pass its --weights, or --weights factory"),
        ("heads", ("--exits", "auto"), "exits answer with classes"),
        ("tiny", ("--metric", "m.py:iou"), "there is no file m.py"),
        ("heads", ("--outputs", "y=labels"), "must be NAME=KIND, with a kind of classes, pixels, embedding, numbers"),
        ("heads", ("--data", "images:none", "--weights", "factory", "--N", 1), "no folder none: pass images:DIR"),
    ],
)  # fmt: skip
def test_a_newcomer_s_network_is_refused_in_a_line_that_says_what_to_do(nas, tmp_path, base, name, words, why):
    wanted = base.replace(":tiny", f":{name}")
    refused(nas, tmp_path, "--base", wanted, "--image-size", 16, *words, why=why, quiet=False)


def test_a_network_for_other_inputs_is_told_which_options_say_so(nas, tmp_path, base):
    grey = ("--base", base.replace(":tiny", ":grey"))
    refused(nas, tmp_path, *grey, "--image-size", "24x16", why="pass --channels L")
    refused(nas, tmp_path, *grey, "--image-size", "16x24", "--channels", "L", why="pass --image-size 24x16")
    refused(nas, tmp_path, "--image-size", "24*16", why="a number of pixels or WIDTHxHEIGHT such as 160x120")
    refused(nas, tmp_path, *grey, "--channels", "grey", why="unknown kind of channels 'grey': known are BGR, L, RGB")


def test_a_folder_that_is_no_run_is_left_alone(nas, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    status, _, error = nas("search", "--out", tmp_path / "mine")
    assert status == 2
    assert len(error) == 1
    assert "is not empty and not a run: pass another --out" in error[0]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "holds a run already: pass --resume to go on, or another --out"),
        (["--resume", "--seed", "5", "--N", "2"], "(N was 3 and is 2, seed was 0 and is 5): pass the same options"),
    ],
)
def test_a_run_is_not_overwritten_nor_mixed_with_another(nas, tmp_path, words, why):
    (tmp_path / "run").mkdir()
    config = encode_config(SearchConfig(workers=1))
    (tmp_path / "run" / "config.json").write_bytes(config)
    status, _, error = nas("search", "--out", tmp_path / "run", "--workers", 1, *words)
    assert status == 2
    assert len(error) == 1
    assert why in error[0]
    assert (tmp_path / "run" / "config.json").read_bytes() == config


def test_show_refuses_what_is_no_finished_run(nas, tmp_path):
    assert nas("show", tmp_path / "none")[::2] == (
        2, [f"nas: {tmp_path / 'none'} is not the folder of a search: pass what --out was given"]
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    status, told, error = nas("show", tmp_path / "run")
    assert (status, told, len(error)) == (2, [], 1)
    assert "is not finished: pass --resume to nas search" in error[0]


def test_an_unknown_option_is_an_error_and_names_itself(nas):
    status, told, error = nas("search", "--colour", "red")
    assert (status, told) == (2, [])
    assert "--colour" in error[-1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["train", "--seed", "-1"], "--seed"), (["train", "--epochs", "many"], "--epochs"), (["trian"], "trian"),
        (["serve"], "missing argument"), (["policy", "train"], "missing option"), (["run", "a", "b", "-z"], "-z"),
    ],
)  # fmt: skip
def test_words_that_do_not_fit_are_one_line_that_names_the_help(nas, words, why):
    status, out, err = nas(*words)
    assert (status, out, len(err)) == (2, [], 1)
    assert err[0].startswith("nas: ")
    assert why in err[0]
    assert "--help" in err[0]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--epochs", "0"], "epochs is 0"), (["--lr", "nan"], "lr is nan"), (["--device-name", "abacus"], "abacus"),
        (["--exits", "99"], "exits are '99'"), (["--out", "."], "is a folder"), (["--out", "model.py/w"], "model.py"),
        (["--from", "nowhere.pth"], "nowhere.pth"), (["--base", "vgg12"], "vgg12"),
    ],
)  # fmt: skip
def test_train_refuses_every_argument_before_it_reads_an_image(nas, tmp_path, base, monkeypatch, words, why):
    monkeypatch.setattr("nas.data.load_dataset", lambda *_, **__: pytest.fail("images were read"))
    status, out, err = nas("train", "--base", base, "--image-size", 16, *words)
    assert (status, out, len(err)) == (2, [], 1)
    assert why in err[0]
    assert [path.name for path in tmp_path.iterdir()] == ["model.py"]


def test_a_search_refuses_exits_before_it_reads_an_image(nas, tmp_path, base, monkeypatch):
    monkeypatch.setattr("nas.training.base_network.load_dataset", lambda *_, **__: pytest.fail("images were read"))
    status, _, err = nas("search", "--base", base, "--image-size", 16, "--N", 2, "--exits", "99", "--out", "run")
    assert (status, len(err)) == (2, 1)
    assert "exits are '99'" in err[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["stream", ".", "--policy", "fastest"], "fastest"), (["stream", ".", "--policy", "gone.npz"], "gone.npz"),
        (["stream", ".", "--out", "file/below"], "file"), (["bench", "--out", "."], "is a folder"),
        (["profile", "--out", "file/below"], "file"), (["emulate", ".", "--out", "."], "is a folder"),
        (["serve", ".", "--metrics", "host:port"], "host:port"),
    ],
)  # fmt: skip
def test_what_is_needed_at_the_end_is_looked_at_first(nas, tmp_path, words, why):
    (tmp_path / "file").write_text("")
    status, out, err = nas(*words)
    assert (status, out, len(err)) == (2, [], 1)
    assert why in err[0]


def test_ctrl_c_says_how_to_go_on(nas, monkeypatch, tmp_path):
    def stops(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.search.search", stops)
    status, told, error = nas("search", "--out", tmp_path / "out")
    assert (status, told) == (130, [])
    assert "start it again with --resume" in error[-1]


def test_help_answers_without_importing_torch():
    code = (
        "import sys; sys.argv = ['nas', 'search', '--help']\n"
        "from nas.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "import json; print(json.dumps(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'scipy'))))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(found.stdout.splitlines()[-1]) == []
    assert "--bandwidth-types" not in found.stdout
    assert "--K" in found.stdout


def test_pictures_that_were_left_out_are_a_line_of_ours(monkeypatch, capsys):
    import warnings

    from modeltree.errors import BrokenImages

    def app(**_):
        warnings.warn("3 of 9 images are left out", BrokenImages, stacklevel=1)

    monkeypatch.setattr("nas.cli.app", app)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(SystemExit):
            main()
    assert capsys.readouterr().err == "nas: 3 of 9 images are left out\n"
