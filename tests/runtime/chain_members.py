"""Members of a chain on loopback: real engines, fronts and connections; the models are small matrices."""

import contextlib
import time

import numpy as np

from runtime.chain.member import ChainMember
from runtime.chain.neighbours import Identity, Neighbours, transport_of
from runtime.chain.placement_file import Member, Placement, Stage
from runtime.server.engine.engine import ModelEngine
from runtime.server.engine.timing import ServiceTimes
from runtime.server.fronts.admission import Admission, Limits
from runtime.server.fronts.request_handler import RequestHandler
from runtime.server.interface import ModelInfo
from runtime.server.serving import front

BLOCKS = tuple(f"{index:020x}" for index in range(1, 4))
SIZES = (6, 5, 4, 3)


class Matrix:
    """A block that multiplies by a matrix of its own."""

    loaded = True

    def __init__(self, index, slow_s=0.0):
        self.name, self.fingerprint, self.slow_s = BLOCKS[index], (index,), slow_s
        self.info = ModelInfo(shape_in=(SIZES[index],), shape_out=(SIZES[index + 1],))
        self.matrix = np.random.default_rng(index).normal(size=SIZES[index : index + 2]).astype(np.float32)
        self.times = ServiceTimes((1,))
        self.times.note(1, 0.001)
        self.ran = 0

    def load(self):
        pass

    def close(self):
        pass

    def run(self, x):
        time.sleep(self.slow_s)
        self.ran += 1
        return x @ self.matrix


def whole(x):
    """What all blocks together make of it."""
    for index in range(len(BLOCKS)):
        x = x @ Matrix(index).matrix
    return x


class Running:
    """A member that listens. holds : indices of its blocks."""

    def __init__(self, name, holds=(0, 1, 2), slow_s=0.0, token=None, tls=None, port=0):
        self.name, self.token, self.tls = name, token, tls
        self.blocks = {index: Matrix(index, slow_s) for index in holds}
        self.engine = ModelEngine(list(self.blocks.values()))
        self.member = None
        self._front, self.port = None, port

    def reserve(self):
        """A port, with nobody there that knows of any placement yet."""
        self._handler = RequestHandler(self.engine)
        scheme = "grpc" if self.tls is None else "grpcs"
        self._front = front(
            self._handler, Admission(Limits(), token=self.token), scheme, "127.0.0.1", self.port, self.tls
        )
        self.port = self._front.port
        return Member(name=self.name, address=f"{scheme}://127.0.0.1:{self.port}")

    def begin(self, placement, identity=None):
        who = identity or Identity(token=self.token)
        neighbours = Neighbours(placement=placement, connect=lambda m: transport_of(m, who), own_name=self.name)
        self.member = ChainMember(self.engine, name=self.name, neighbours=neighbours)
        self._handler._engine = self.member
        self._front.start()

    def stop(self):
        if self._front is not None:
            self._front.stop(0.0)
            self._front = None
        if self.member is not None:
            self.member.close()
        self.engine.close()


@contextlib.contextmanager
def members(*running, identity=None):
    """Start members under one placement: stage i is planned for member i, all others may take it."""
    placed = [one.reserve() for one in running]
    names = [one.name for one in placed]
    stages = tuple(
        Stage(blocks=(block,), members=(names[i % len(names)], *(n for n in names if n != names[i % len(names)])))
        for i, block in enumerate(BLOCKS)
    )
    placement = Placement(stages=stages, members=tuple(placed))
    for one in running:
        one.begin(placement, identity)
    try:
        yield placement
    finally:
        for one in running:
            one.stop()
