"""The descriptors that we ship are what protoc makes of the .proto files beside them."""

import subprocess
from importlib import resources

from environments import environment, needs_venv

from runtime.wire.protocol.messages import DESCRIPTORS, PROTOS

pytestmark = needs_venv


def test_protoc_makes_the_descriptors_that_we_ship(tmp_path):
    python, folder = environment("protoc", "grpcio-tools==1.81.0"), resources.files("runtime.wire.protocol")
    made = tmp_path / DESCRIPTORS
    words = [f"-I{folder}", f"--descriptor_set_out={made}", *PROTOS]
    subprocess.run([python, "-m", "grpc_tools.protoc", *words], check=True, timeout=60)
    assert made.read_bytes() == folder.joinpath(DESCRIPTORS).read_bytes(), "run `make protocol`"
