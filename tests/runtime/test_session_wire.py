"""A session and a real server, over every transport: pixels cross, and the answer is that of the path taken."""

import numpy as np
import pytest
from certificates import Authority
from forked_run import IMAGE, compiled, normalised, wanted

from modeltree.errors import NasError
from runtime import Session
from runtime.server.fronts.admission import ServerTls
from runtime.server.serving import ServeConfig, Server

TOKEN = "open-sesame"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("wire"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"), "ours")


@pytest.fixture(scope="module")
def urls(bundle, authority):
    """Scheme -> address; the encrypted ones want to see a certificate of the device."""
    signed = authority.signed("server")
    tls = ServerTls(certificate=signed["certificate"], key=signed["key"], ca=authority.pem)
    schemes = ("grpc", "http", "grpcs", "https")
    listen = tuple(f"{scheme}://127.0.0.1:0" for scheme in schemes)
    with Server(ServeConfig(bundle=bundle, listen=listen, tls=tls, token=TOKEN)) as server:
        yield dict(zip(schemes, server.urls, strict=True))


def options(scheme, authority):
    """What a device that may enter brings."""
    if not scheme.endswith("s"):
        return {"token": TOKEN}
    return {"token": TOKEN, "ca": authority.pem} | authority.signed("device")


@pytest.mark.parametrize("scheme", ["grpc", "http", "grpcs", "https"])
def test_pixels_cross_and_the_answer_is_the_paths(urls, bundle, authority, scheme):
    pixels = np.random.default_rng(0).integers(0, 256, IMAGE, dtype=np.uint8)
    told = options(scheme, authority) | {"policy": "switch"}  # times here are no matter
    with Session.open(bundle, server=urls[scheme], timeout_s=20.0, **told) as session:
        assert session.measure()  # this machine's own link is fast
        result = session.infer(pixels)
    assert (result.nodes, result.answered_by) == ((1,), "cloud"), result.why
    np.testing.assert_allclose(result.output, wanted((1,), normalised(pixels)), rtol=1e-4, atol=1e-4)
    assert result.parts.transfer > 0 < result.parts.cloud


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_a_device_without_a_certificate_answers_alone(urls, bundle, authority, scheme):
    pixels = np.random.default_rng(1).integers(0, 256, IMAGE, dtype=np.uint8)
    with Session.open(bundle, server=urls[scheme], token=TOKEN, ca=authority.pem) as session:
        assert not session.measure()
        result = session.infer(pixels)
    assert result.answered_by == "device"
    np.testing.assert_allclose(result.output, wanted(result.nodes, normalised(pixels)), rtol=1e-4, atol=1e-4)


def test_only_cloud_says_what_a_wrong_token_is(urls, bundle):
    wrong = Session.open(bundle, server=urls["grpc"], token="wrong", mode="only-cloud", timeout_s=20.0)
    with wrong as session, pytest.raises(NasError, match="token"):
        session.infer(np.zeros(IMAGE, np.uint8))


@pytest.mark.parametrize(("scheme", "port", "said"), [
    ("http", "grpc", "speaks gRPC: pass grpc://"), ("grpc", "http", "speaks HTTP/1 and no gRPC: pass http://"),
    ("https", "http", "not encrypted; pass http://"), ("https", "grpc", "not encrypted; pass http:// or grpc://"),
    ("grpcs", "grpc", "not encrypted; pass grpc://"), ("grpcs", "http", "not encrypted; pass grpc:// or http://"),
])  # fmt: skip
def test_a_wrong_scheme_or_port_is_told_what_is_there(urls, bundle, authority, scheme, port, said):
    url = f"{scheme}://{urls[port].partition('://')[2]}"
    with Session.open(bundle, server=url, probes=None, **options(scheme, authority)) as session:
        assert not session.measure()
        assert said in session.unanswered
