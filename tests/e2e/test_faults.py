"""A small campaign of `benchmarks/faults.py`: whatever breaks, every inference is answered, and rightly."""

import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tests/runtime")]

from certificates import Authority  # noqa: E402
from fault_kinds import KINDS, kinds_for  # noqa: E402
from fault_world import World  # noqa: E402
from faults import Campaign  # noqa: E402
from forked_run import compiled  # noqa: E402

INFERENCES, SEED = 150, 0
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    made = World(compiled(folder), Authority(folder / "tls", "faults"), SEED)
    yield made
    made.close()


def test_while_things_break_at_random_every_inference_is_answered_and_rightly(world):
    campaign = Campaign(world.server.bundle, world, INFERENCES, SEED)
    record = campaign.run(each=40)
    assert len(record.inferences) >= INFERENCES
    assert [one for one in record.inferences if one.wrong] == []


@pytest.mark.parametrize("scheme", ["grpc", "https"])
def test_after_every_fault_that_we_know_the_cloud_answers_again(world, scheme):
    campaign = Campaign(world.server.bundle, world, 0, SEED)
    setting = (scheme, "prefer-cloud", True)
    with campaign.session(*setting) as session:
        session.measure()
        for fault in kinds_for(scheme):
            with KINDS[fault](world, scheme, campaign.rng):
                campaign.infer(session, setting, fault, False)
        end = time.monotonic() + PATIENCE_S
        while campaign.infer(session, setting, "none", True).by != "cloud":
            assert time.monotonic() < end, "it never came back"
    assert [one for one in campaign.record.inferences if one.wrong] == []
