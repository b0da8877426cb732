"""What is shown of a URL never opens anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.urls import is_loopback, mask_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://192.0.2.7/stream1", "rtsp://192.0.2.7/stream1"),
        ("rtsp://ann:pass@192.0.2.7:554/a?x=1", "rtsp://***@192.0.2.7:554/a?x=1"),
        ('rtsp://ann:it\'s "p w"@cam/a', "rtsp://***@cam/a"),
        ("rtsp://ann:a/b@cam/a", "rtsp://***@cam/a"),
        ("rtsp://ann:a?b@cam/a?pwd=x", "rtsp://***@cam/a?pwd=***"),
        ("rtsp://ann:a@b@cam/a", "rtsp://***@cam/a"),
        ("rtsp://cam/a?user=admin&password=p&stream=0", "rtsp://cam/a?user=***&password=***&stream=0"),
        ("rtsp://cam/a?pwd=1&apikey=2&api_key=3&channel=4", "rtsp://cam/a?pwd=***&apikey=***&api_key=***&channel=4"),
        ("rtsp://cam/a?pwd=1@2&x=3&key=4", "rtsp://***@***&x=3&key=***"),
        ("rtsp://ann:a@b?c@cam/a", "rtsp://***@cam/a"),
        ("rtsp://cam/a?z=1&pwd=x?@y&z=2", "rtsp://***@***&z=2"),
        ("rtsp://cam/a?passwd=&usr=x", "rtsp://cam/a?passwd=&usr=***"),
        ("ID_SERIAL=Vendor_Camera_0001", "ID_SERIAL=Vendor_Camera_0001"),
        ("test", "test"),
    ],
)
def test_a_url_is_shown_without_what_opens_it(url: str, shown: str) -> None:
    """Host, path and harmless parameters stay readable."""
    assert mask_url(url) == shown


_PASSWORD = st.text(min_size=1).map(lambda text: f"SECRET{text}SECRET")


@given(_PASSWORD, st.sampled_from(["/a", "", "/a?x=1", ":554/a"]))
def test_no_part_of_a_password_in_front_of_the_host_is_shown(password: str, rest: str) -> None:
    """Whatever signs it has, escaped or not."""
    assert "SECRET" not in mask_url(f"rtsp://ann:{password}@cam{rest}")


@given(st.sampled_from(["pwd", "PASSWORD", "apikey", "x-token", "auth"]), _PASSWORD)
def test_no_part_of_a_password_in_the_query_is_shown(name: str, password: str) -> None:
    """A parameter ends at the next &."""
    password = password.replace("&", "")
    assert "SECRET" not in mask_url(f"rtsp://cam/a?z=1&{name}={password}&y=2")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.255.2.30", "::1", "[::1]", "::ffff:127.0.0.1", "[::FFFF:127.8.9.1]", "localhost", "LOCALHOST"],
)
def test_this_machine_is_known_in_every_spelling(host: str) -> None:
    """As the kernel gives it, also of a dual-stack socket, and as it stands in a URL."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "", "127", "127.1", "127.0.0.1.example", "127.0.0.256", "127.0.0.01", "128.0.0.1", "::2", "::", "0.0.0.0",
        "::ffff:192.0.2.1", "localhost.example", "192.0.2.1",
    ],
)  # fmt: skip
def test_what_only_looks_like_this_machine_is_not(host: str) -> None:
    """A name that begins like an address belongs to whoever holds the domain."""
    assert not is_loopback(host)
