"""What is deployed sees what was trained: one picture through every way to a network gives the same numbers.

Files and their bytes give the same to the bit. What was decoded before it came to us may differ where we read a JPEG
at a part of its size: by half a level of 255 on average, and by three at most.
"""

import contextlib
import io

import msgspec
import numpy as np
import pytest
from forked_run import FAST_MBPS, FROM_IMAGE, IMAGE, compiled, normalised, tree
from in_process_transport import InProcessTransport
from PIL import Image
from sample_pictures import pictures

from modeltree.image_codes import image_code
from modeltree.tree import version_of
from nas.cli.deployed.picture_sources import PictureSources
from nas.data import load_dataset
from nas.field.images import field_images
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.images import coded, received, sendable_file
from runtime.options import SessionOptions
from runtime.server.interface import Answer, ModelInfo
from runtime.session import Session
from runtime.wire.transports import Unreachable

PICTURES = pictures()
MEAN_LEVELS, MOST_LEVELS = 0.5, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders for training, with every picture in `test/a`."""
    root = tmp_path_factory.mktemp("pictures")
    for part in ("train", "test"):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for k in range(4):
                Image.new("RGB", (20, 20), (60 * k, 10, 10)).save(root / part / name / f"{k}.png")
    for name, data in PICTURES.items():
        (root / "test" / "a" / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def trained(folder):
    """Picture -> pixels as training's loader has them."""
    files = sorted((folder / "test" / "a").iterdir())
    images = load_dataset(f"imagefolder:{folder}", image_size=IMAGE[1]).test.images
    return {file.name: images[position] for position, file in enumerate(files)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("deployed"))


@contextlib.contextmanager
def session_of(bundle, code=""):
    """(session, what entered the server's network, its transport) on a link on which the whole picture crosses."""
    device, entered = Device(Bundle.open(bundle)), []
    here = Device(Bundle.open(bundle))
    nodes = tuple(
        msgspec.structs.replace(node, handover=msgspec.structs.replace(node.handover, code=code))
        if node.handover is not None and node.handover.place == 0
        else node
        for node in tree().nodes
    )
    coded_tree = msgspec.structs.replace(tree(), nodes=nodes, version=version_of(nodes, tree().types))
    here.manifest = msgspec.structs.replace(here.manifest, tree=coded_tree)

    class Engine:
        models = {FROM_IMAGE: ModelInfo(shape_in=IMAGE, shape_out=(4,), mean=tree().mean, std=tree().std)}  # noqa: RUF012

        def infer(self, model, x, *, deadline_s):
            entered.append(x)
            return Answer(output=np.concatenate([device.run(model, one[None]) for one in x]), seconds=1e-4)

        def ready(self):
            return True

    class Link:
        def bandwidth_type(self):
            return 1, FAST_MBPS

        def observe(self, exchange, *, finished=True):
            pass

        def expected_s(self, size_bytes):
            return None

    transport = InProcessTransport(Engine())
    with Session(here, Link(), transport, SessionOptions(hedge=False, timeout_s=60.0)) as session:
        yield session, entered, transport


@pytest.fixture(scope="module")
def opened(bundle):
    with session_of(bundle) as parts:
        yield parts[:2]


@pytest.mark.parametrize("name", PICTURES)
def test_every_way_sees_what_training_saw(name, folder, trained, opened):
    session, entered = opened
    file, wanted = folder / "test" / "a" / name, trained[name]
    taking = tree().preprocessing

    ((told, run),) = PictureSources([str(file)], taking, repeat=1)
    assert (told, run.tolist()) == (str(file), wanted.tolist())
    assert np.array_equal(session.device.entering(file)[1], wanted)
    assert np.array_equal(session.device.entering(PICTURES[name])[1], wanted)
    x = session.device.entering(str(file))[0]
    assert np.abs(x[0] - normalised(wanted)).max() < 1e-5

    result = session.infer(file)
    assert result.answered_by == "cloud"
    assert np.array_equal(entered[-1], x)

    with Image.open(io.BytesIO(PICTURES[name])) as picture:
        difference = np.abs(session.device.entering(picture)[1].astype(int) - wanted)
    assert difference.mean() <= MEAN_LEVELS
    assert difference.max() <= MOST_LEVELS


def test_a_field_run_sees_what_training_saw(folder, trained):
    from types import SimpleNamespace

    found = field_images(SimpleNamespace(tree=tree()), folder / "test" / "a", count=1, seed=0)
    assert np.array_equal(found.images, np.stack(list(trained.values())))


@pytest.mark.parametrize("code", ["came", "jpeg:90", "webp:60", "jpeg:75@6"])
def test_a_picture_that_crosses_as_a_file_enters_as_that_file_says(code, folder, trained, bundle):
    taking = tree().preprocessing
    with session_of(bundle, code) as (session, entered, transport):
        sent = []
        send = transport._send
        transport._send = lambda *args: sent.append(args[2]) or send(*args)
        for name, pixels in trained.items():
            file = folder / "test" / "a" / name
            as_it_is = sendable_file(file) if code == "came" else None
            made = as_it_is or coded(pixels, image_code(code), "RGB")
            wanted = pixels if as_it_is else received(made, taking, whole=False)
            result = session.infer(file)
            assert result.answered_by == "cloud", result.why
            assert np.array_equal(entered[-1][0], taking.normalised(wanted)), name
            assert bytes(sent[-1].data).count(made) == 1
            assert len(sent[-1].data) == len(made) + 40


def test_a_file_that_crosses_as_it_came_is_decoded_by_nobody_here(folder, trained, bundle, monkeypatch):
    name = "plain.jpg"
    with session_of(bundle, "came") as (session, entered, _):
        monkeypatch.setattr(session.device, "entering", lambda picture: pytest.fail("it was decoded"))
        assert session.infer(folder / "test" / "a" / name).answered_by == "cloud"
        assert np.array_equal(entered[-1][0], tree().preprocessing.normalised(trained[name]))


def test_where_the_cloud_does_not_answer_the_file_is_decoded_after_all(folder, trained, bundle):
    name = "plain.jpg"

    def gone(*args):
        raise Unreachable("it is gone")

    with session_of(bundle, "came") as (session, entered, transport):
        transport._send = gone
        result = session.infer(folder / "test" / "a" / name)
        alone = session.device.run(FROM_IMAGE, tree().preprocessing.normalised(trained[name])[None])
    assert (result.answered_by, entered) == ("device", [])
    assert np.array_equal(result.output, alone[0])


def test_numbers_cross_as_numbers_whatever_the_code(bundle, trained):
    x = tree().preprocessing.normalised(next(iter(trained.values())))
    with session_of(bundle, "jpeg:90") as (session, entered, _):
        assert session.infer(x).answered_by == "cloud"
        assert np.array_equal(entered[-1][0], x)
