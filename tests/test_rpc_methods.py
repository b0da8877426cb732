"""Names of methods → operations."""

from __future__ import annotations

import msgspec
import pytest

from edged.operations import sessions
from edged.operations.catalogue import Catalogue, NoParams, OperationCall, operation
from edged.rpc.methods import table


class TokenParams(msgspec.Struct, frozen=True):
    token: str = ""


@operation("self")
def revoke_token(call: OperationCall, params: TokenParams) -> None:
    """Has a param of its own with the name of a credential's."""


@operation("system:admin")
def get_status(call: OperationCall, params: NoParams) -> None:
    """Has another name."""


@operation("none", name="camera_status_update")
def clash(call: OperationCall, params: NoParams) -> None:
    """Nobody may ask for what we tell."""


def test_every_operation_is_a_method_of_its_name() -> None:
    """Adding an operation adds the method; nothing else is to be edited."""
    methods = table(Catalogue.gather(sessions))
    assert set(methods) == {"ping", "authenticate", "whoami", "list_sessions", "end_session"}
    assert [name for name, method in methods.items() if method.is_barrier] == ["authenticate"]


def test_an_alias_means_the_same_operation_where_there_is_one() -> None:
    """get_system_health is get_status, and is unknown where get_status is."""
    methods = table(Catalogue([get_status.__operation__]))  # type: ignore[attr-defined]
    assert methods["get_system_health"] is methods["get_status"]
    assert "get_system_health" not in table(Catalogue([]))


def test_a_param_of_the_operation_is_no_credential_of_the_call() -> None:
    """revoke_token's token is what is to be revoked, never who asks."""
    methods = table(Catalogue([revoke_token.__operation__, sessions.ping.__operation__]))  # type: ignore[attr-defined]
    assert methods["revoke_token"].credentials == {"auth_token", "auth_type"}
    assert methods["ping"].credentials == frozenset()


def test_a_notification_is_never_an_operation() -> None:
    """What we tell cannot be asked."""
    with pytest.raises(ValueError, match="camera_status_update"):
        table(Catalogue([clash.__operation__]))  # type: ignore[attr-defined]
