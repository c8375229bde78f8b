"""Who asks, told from a request alone."""

import pytest
from fastapi import Request, Response

from fba_app.problems import ForbiddenError
from fba_app.users import access


def request(peer: str | None = "203.0.113.9", method: str = "POST", scheme: str = "http", **headers: str) -> Request:
    return Request(
        {
            "type": "http",
            "method": method,
            "scheme": scheme,
            "path": "/",
            "query_string": b"",
            "server": ("testserver", 80),
            "client": (peer, 50000) if peer else None,
            "headers": [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
    )


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "172.18.0.5", "10.1.2.3", "::ffff:10.1.2.3", "fd00::2"])
def test_nginx_is_believed(peer: str) -> None:
    assert access.client_address(request(peer, X_Real_IP="198.51.100.7")) == "198.51.100.7"


@pytest.mark.parametrize("peer", ["8.8.8.8", "2600::1", "::ffff:8.8.8.8"])
def test_a_stranger_is_not_believed(peer: str) -> None:
    assert access.client_address(request(peer, X_Real_IP="198.51.100.7")) == peer.removeprefix("::ffff:")


@pytest.mark.parametrize("named", ["", "nonsense", "1.2.3.4, 5.6.7.8", "1.2.3.4.5"])
def test_an_address_that_is_none_is_passed_over(named: str) -> None:
    assert access.client_address(request("10.1.2.3", X_Real_IP=named)) == "10.1.2.3"


def test_an_interface_name_is_cut_off() -> None:
    assert access.client_address(request("10.1.2.3", X_Real_IP="fe80::1%whatever")) == "fe80::1"


@pytest.mark.parametrize("peer", [None, "testclient"])
def test_a_peer_without_an_address_is_unknown(peer: str | None) -> None:
    assert access.client_address(request(peer, X_Real_IP="198.51.100.7")) == "unknown"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "http://example.org:8000", "Host": "example.org:8000"},
        {"Origin": "https://example.org", "Host": "example.org"},
    ],
)
def test_ones_own_pages_may_ask(headers: dict[str, str]) -> None:
    access.check_same_origin(request(**headers))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "example.org"},
        {"Host": ""},
        {"Sec_Fetch_Site": "cross-site"},
        # A neighbour under the same domain is another site's page all the same.
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://example.org", "Host": "example.org"},
        {"Origin": "null", "Host": "example.org"},
        {"Origin": "http://evil.example", "Host": "example.org"},
        {"Origin": "http://example.org:8001", "Host": "example.org:8000"},
        {"Origin": "http://[", "Host": "example.org"},
    ],
)
def test_other_pages_may_not(headers: dict[str, str]) -> None:
    with pytest.raises(ForbiddenError):
        access.check_same_origin(request(**headers))


@pytest.mark.parametrize(
    ("scheme", "headers", "secure"),
    [
        ("http", {}, False),
        ("https", {}, True),
        ("http", {"X_Forwarded_Proto": "https"}, True),
        ("http", {"X_Forwarded_Proto": "http"}, False),
    ],
)
def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(
    scheme: str, headers: dict[str, str], secure: bool
) -> None:
    response = Response()
    access.set_cookie(response, request(scheme=scheme, **headers), "id.secret")
    cookie, *attributes = response.headers["Set-Cookie"].split("; ")
    assert cookie == "fba_session=id.secret"
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(attributes)
    assert ("Secure" in attributes) is secure


def test_the_cookie_is_taken_away() -> None:
    response = Response()
    access.clear_cookie(response)
    assert "Max-Age=0" in response.headers["Set-Cookie"]
