"""Who gets in at the server's two fronts: certificates and tokens."""

import pytest
from certificates import Authority
from summing_fronts import BOTH, FRONTS, Summing, X, ask, served

from modeltree.errors import ConfigError
from runtime.server.fronts.admission import Admission, Limits, ServerTls
from runtime.server.fronts.request_handler import RequestHandler
from runtime.wire.transports import Refused, TransportError, Unreachable, open_transport


def refused(url, authority):
    with pytest.raises(Refused, match=r"(?i)certificate|hostname"):
        ask(url, ca=authority.pem)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "stranger")


@pytest.fixture(scope="module")
def server_tls(authority):
    return authority.signed("server")


@pytest.fixture(scope="module")
def device_tls(authority):
    return authority.signed("device")


@BOTH
def test_with_its_authority_known_a_server_is_asked_over_tls(scheme, authority, server_tls):
    with served(scheme, tls=ServerTls(**server_tls)) as url:
        assert ask(url, ca=authority.pem) == 3


@BOTH
def test_a_certificate_of_a_stranger_is_refused(scheme, authority, stranger):
    with served(scheme, tls=ServerTls(**stranger.signed("server"))) as url:
        refused(url, authority)


@BOTH
def test_a_certificate_that_has_expired_is_refused(scheme, authority):
    with served(scheme, tls=ServerTls(**authority.signed("expired", days=-1))) as url:
        refused(url, authority)


@BOTH
def test_a_certificate_for_another_host_is_refused(scheme, authority):
    with served(scheme, tls=ServerTls(**authority.signed("elsewhere", address="DNS:elsewhere"))) as url:
        refused(url, authority)


@BOTH
def test_without_the_authority_no_server_is_believed(scheme, server_tls):
    with served(scheme, tls=ServerTls(**server_tls)) as url, pytest.raises(Refused):
        ask(url)


@BOTH
def test_a_device_that_shows_its_certificate_is_let_in(scheme, authority, server_tls, device_tls):
    with served(scheme, tls=ServerTls(**server_tls, ca=authority.pem)) as url:
        assert ask(url, ca=authority.pem, **device_tls) == 3


@BOTH
@pytest.mark.parametrize("shown", ["none", "a stranger's", "expired"])
def test_a_device_without_a_good_certificate_stays_out(scheme, shown, authority, stranger, server_tls):
    files = {
        "none": lambda: {},
        "a stranger's": lambda: stranger.signed("device"),
        "expired": lambda: authority.signed("device-expired", days=-1),
    }[shown]()
    engine = Summing()
    with served(scheme, engine=engine, tls=ServerTls(**server_tls, ca=authority.pem)) as url:
        with pytest.raises((Refused, Unreachable), match=r"(?i)tls|broke"):
            ask(url, ca=authority.pem, **files)
        assert not engine.waiting.acquire(blocking=False)
        assert ask(url, ca=authority.pem, **authority.signed("device-good")) == 3


@BOTH
@pytest.mark.parametrize("pair", [("grpcs", "grpc"), ("grpc", "grpcs")])
def test_a_device_and_a_server_that_disagree_on_tls_do_not_meet(scheme, pair, authority, server_tls):
    encrypted = pair[0] == "grpcs"
    with served(scheme, tls=ServerTls(**server_tls) if encrypted else None) as url:
        port = url.rpartition(":")[2]
        other = f"{scheme}{'' if encrypted else 's'}://127.0.0.1:{port}"
        with pytest.raises(TransportError):
            ask(other, timeout_s=1.0, **({} if encrypted else {"ca": authority.pem}))


@BOTH
@pytest.mark.parametrize(("token", "message"), [(None, "carries no token"), ("wrong", "another token")])
def test_without_the_token_nothing_is_answered_but_health(scheme, token, message):
    with served(scheme, token="right") as url:
        assert ask(url, token="right") == 3
        with open_transport(url, token=token) as transport:
            for call in (
                lambda: transport.infer("sum", X, bits=32, timeout_s=5.0),
                lambda: transport.probe(10, 5.0),
                lambda: transport.describe("sum", 5.0),
            ):
                with pytest.raises(Refused, match=message):
                    call()
            assert transport.ready(5.0)


@BOTH
def test_tls_files_that_do_not_fit_are_refused_before_serving(scheme, tmp_path, server_tls):
    text = tmp_path / "no.pem"
    text.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"TLS|PEM"):
        FRONTS[scheme](
            RequestHandler(Summing()), Admission(Limits()), tls=ServerTls(certificate=text, key=server_tls["key"])
        )
    with pytest.raises(ConfigError, match="not a file"):
        ServerTls(certificate=tmp_path / "missing.pem", key=text)
