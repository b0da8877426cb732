"""Who is at the other end: what the kernel says, and when it must not be believed."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.net.peers import find_uid, peer_of
from edged.sockets import read_answer


@pytest.fixture(params=[("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def pair(request):
    """A connected TCP pair on loopback: (client, accepted)."""
    address, family = request.param
    with socket.create_server((address, 0), family=family) as listening, socket.socket(family) as client:
        client.connect(listening.getsockname()[:2])
        accepted, _ = listening.accept()
        with accepted:
            yield client, accepted


def test_a_loopback_peer_has_the_uid_of_its_owner(pair):
    """By sock_diag on the exact four-tuple, IPv4 and IPv6; the host is ready for a URL."""
    client, accepted = pair
    peer = peer_of(accepted, "main")
    assert peer.find_uid() == os.getuid()
    assert (peer.address, peer.port, peer.uid) == (*client.getsockname()[:2], None)
    assert peer.host in ("127.0.0.1", "[::1]")


def test_a_peer_that_closed_its_socket_has_no_uid(pair):
    """The kernel reports uid 0 for it: state FIN_WAIT2, inode 0 (contract 5.1)."""
    client, accepted = pair
    peer = peer_of(accepted, "main")
    client.close()
    assert peer.find_uid() is None


def test_a_peer_that_only_stopped_writing_has_no_uid_either(pair):
    """Not ESTABLISHED any more."""
    client, accepted = pair
    client.shutdown(socket.SHUT_WR)
    assert peer_of(accepted, "main").find_uid() is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_user_is_told_from_root():
    """A child that runs as nobody connects; the uid is nobody's, and unknown once it closed."""
    script = (
        "import encodings.idna, os, socket, sys; os.setuid(65534);"
        "s = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
        "print('in', flush=True); sys.stdin.readline(); s.close(); print('out', flush=True); sys.stdin.readline()"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        command = [sys.executable, "-c", script, str(listening.getsockname()[1])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            accepted, _ = listening.accept()
            with accepted:
                assert child.stdout is not None
                assert child.stdin is not None
                assert child.stdout.readline() == "in\n"
                peer = peer_of(accepted, "local")
                assert peer.find_uid() == 65534
                child.stdin.write("\n")
                child.stdin.flush()
                assert child.stdout.readline() == "out\n"
                assert peer.find_uid() is None
            child.communicate("\n", timeout=10)


def test_a_connection_that_never_was_has_no_uid():
    """And neither has a listening socket that would answer for it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert find_uid(socket.AF_INET, ("127.0.0.1", port), ("127.0.0.1", 1)) is None
        assert find_uid(socket.AF_INET, ("127.0.0.1", 1), ("127.0.0.1", port)) is None


def test_a_peer_elsewhere_is_not_looked_up():
    """Only loopback has uids; the address is what accept() said."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        peer = peer_of(accepted, "main", ("192.0.2.7", 5000))
        assert (peer.address, peer.port, peer.find_uid()) == ("192.0.2.7", 5000, None)


WANTED = struct.pack("!HH16s16s", 1, 2, b"a" * 16, b"b" * 16)


def diag(kind=20, family=2, state=1, wanted=WANTED, uid=7, inode=9) -> bytes:
    """A reply of sock_diag."""
    body = struct.pack("=BBBB", family, state, 0, 0) + wanted + b"\0" * 12 + struct.pack("=IIIII", 0, 0, 0, uid, inode)
    return bytes(struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body)


def test_a_reply_counts_only_if_it_is_about_this_very_live_socket():
    """State, inode, family and four-tuple must all be right."""
    assert read_answer(diag(), 2, WANTED) == (7, 9)
    assert read_answer(diag(uid=0), 2, WANTED) == (0, 9)
    for wrong in (diag(kind=2), diag(family=10), diag(state=5), diag(wanted=WANTED[::-1]), diag(inode=0), diag()[:-1]):
        assert read_answer(wrong, 2, WANTED) is None


@given(st.binary(max_size=120))
def test_no_reply_breaks_the_reader(answer):
    """Whatever the kernel sends, the worst is None."""
    assert read_answer(answer, 2, WANTED) is None


def test_without_netlink_nobody_has_a_uid(monkeypatch):
    """A container that forbids it: the credential-free rule is just off."""

    def refuse(*_, **__):
        raise OSError("not permitted")

    monkeypatch.setattr("edged.sockets.socket.socket", refuse)
    assert find_uid(socket.AF_INET, ("127.0.0.1", 1), ("127.0.0.1", 2)) is None
