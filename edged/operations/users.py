"""Users: list, create, change, set passwords, delete (contract 10.1, 10.18). No reply has a password."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from edged.clock import iso
from edged.credentials.callers import Streams
from edged.credentials.decision import Reason
from edged.credentials.passwords import check_password
from edged.credentials.roles import SELF, canonical_role
from edged.credentials.users import UserRecord, gains
from edged.errors import Denied, InvalidParams, InvalidState, Refused
from edged.operations.camera_names import resolve_rights
from edged.operations.catalogue import NoParams, OperationCall, operation
from edged.operations.effects import list_effective, list_without_effect
from edged.operations.pages import NextCursor, PageParams, Rows, make_page
from edged.operations.rest import create, delete, get, patch, put
from edged.operations.rights import Grantor, Role, StreamAccess, read_names, read_streams, show_streams
from edged.operations.services import Services

DisplayName = Annotated[str, msgspec.Meta(max_length=100)]
#: A longer text is refused at once.
Password = Annotated[str, msgspec.Meta(max_length=4096)]
_DEMO: Final = "demo"
#: The stream of guide S4.
_DEMO_STREAM: Final = "camera_one"


class UserItem(msgspec.Struct, frozen=True):
    """A user; times ISO 8601. Without a password they cannot log in.

    `effective_permissions` is what they may do now, `without_effect` are permissions and cameras that have no
    effect.
    """

    name: str
    display_name: str
    role: str
    permissions: list[str] | None
    camera_access: list[str] | None
    streams: StreamAccess | None
    disabled: bool
    has_password: bool
    created_at: str
    password_changed_at: str | None
    effective_permissions: list[str] = []
    without_effect: list[str] = []


class UserList(msgspec.Struct, frozen=True):
    users: Rows[UserItem]
    next_cursor: NextCursor = UNSET


@operation("users:admin", rest=get("/api/users"), counted_as="users")
async def list_users(call: OperationCall, params: PageParams) -> UserList:
    """All users, by name."""
    rows, cursor = await make_page(
        call, call.services.users.all(), lambda record: (0.0, record.name), partial(_show, services=call.services),
        limit=params.limit, cursor=params.cursor,
    )  # fmt: skip
    return UserList(rows, cursor)


class CreateUserParams(msgspec.Struct, frozen=True):
    """`permissions` narrow the role; `streams` names the streams, without it they are those of the cameras that the
    user may see. Without a password a user cannot log in, but can own keys."""

    name: str
    role: Role
    password: Password | None = None
    display_name: DisplayName = ""
    permissions: list[str] | None = None
    camera_access: list[str] | None = None
    streams: StreamAccess | None = None


@operation("users:admin", rest=create("/api/users"), counted_as="users")
async def create_user(call: OperationCall, params: CreateUserParams) -> UserItem:
    """Create a user with at most the rights of the caller. Durable before this answers."""
    params = resolve_rights(params, call.services.cameras)
    services, streams = call.services, read_streams(params.streams)

    refuse = partial(Grantor(call).refuse_widening, params.role, params.permissions, params.camera_access, streams)
    authority = call.authority("users:admin", refuse)
    authority.check()
    # Checked before the password is hashed, and again at the commit.
    services.users.check_name(params.name)
    record = await services.users.create(
        authority,
        name=params.name,
        role=canonical_role(params.role),
        password=None if params.password is None else await _hash(call, params.password, params.name),
        display_name=params.display_name,
        permissions=read_names("permissions", params.permissions),
        camera_access=read_names("camera_access", params.camera_access),
        streams=streams,
    )
    return _show(record, call.services)


@operation("users:admin", rest=create("/api/demo-login", source="optional body"), counted_as="users")
async def create_demo_login(call: OperationCall, params: NoParams) -> UserItem:
    """Create the viewer demo with the password demo, as in guide S4 (contract S4-4); on the unix socket only. The
    password is public: it is accepted on this machine only, and only by a demo.

    The user may read the streams of the present cameras, and the one of that guide.
    """
    if not call.session.peer.is_local_socket:
        raise Denied(
            Reason.MISSING_SCOPE, "the demo's user is made on this machine alone", hint="sudo edged user demo-login"
        )
    services, authority = call.services, call.authority("users:admin")
    if not services.logins.is_demo:
        raise InvalidState(
            "this box is no demo: a password that everybody knows would let nobody in",
            hint="edged demo runs one on loopback; here: edged user add NAME --role viewer",
        )
    hashed = await services.passwords.hash(_DEMO)
    streams = Streams(read=frozenset({_DEMO_STREAM, *(camera.name for camera in services.cameras.all())}))
    record = await services.users.create(authority, name=_DEMO, role="viewer", password=hashed, streams=streams)
    return _show(record, services)


class UserParams(msgspec.Struct, frozen=True):
    name: str


@operation("self", rest=get("/api/users/{name}"), counted_as="users")
def get_user(call: OperationCall, params: UserParams) -> UserItem:
    """One user: any with users:admin, otherwise oneself, by a login of one's own."""
    if not _is_own(call, params.name):
        call.services.gate.authorize(call.session.caller, "users:admin", call.session.transport)
    return _show(call.services.users.get(params.name), call.services)


class UpdateUserParams(msgspec.Struct, frozen=True):
    """Members that are given change, the others stay. null removes a restriction: all of the role, every camera, the
    streams of the cameras."""

    name: str
    display_name: DisplayName | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    permissions: list[str] | UnsetType | None = UNSET
    camera_access: list[str] | UnsetType | None = UNSET
    streams: StreamAccess | UnsetType | None = UNSET
    disabled: bool | UnsetType = UNSET


@operation("users:admin", rest=patch("/api/users/{name}"), counted_as="users")
async def update_user(call: OperationCall, params: UpdateUserParams) -> UserItem:
    """Change a user, disable or enable them; durable before this answers.

    Rights that are taken away end at once, and with them every token that edged issued to the user; tokens and keys
    of a disabled user are suspended until they are enabled. Whoever has users:admin may narrow any user; a change
    that widens one needs the right to create such a user.
    """
    params = resolve_rights(params, call.services.cameras)
    changes = _read_changes(call, params)
    if not changes:
        raise InvalidParams(
            "nothing to change", hint="give display_name, role, permissions, camera_access, streams or disabled"
        )

    authority, grantor = call.authority("users:admin"), Grantor(call)

    def check(before: UserRecord, after: UserRecord) -> None:
        authority.check()
        if gains(before, after) or (before.disabled_at is not None and after.disabled_at is None):
            _refuse_widening(grantor, after)

    return _show(
        await call.services.users.update(authority, params.name, changes, check, by=call.session.id), call.services
    )


class DeletedUser(msgspec.Struct, frozen=True):
    message: str
    name: str


@operation("users:admin", rest=delete("/api/users/{name}"), counted_as="users")
async def delete_user(call: OperationCall, params: UserParams) -> DeletedUser:
    """Delete a user and revoke their tokens and sessions for good; their keys are suspended. Durable before this
    answers."""
    record = await call.services.users.delete(params.name, by=call.session.id)
    return DeletedUser("user deleted", record.name)


class SetPasswordParams(msgspec.Struct, frozen=True):
    """`name` is the caller, unless given. Without users:admin `old_password` is needed."""

    password: Password
    name: str | None = None
    old_password: Password | None = None


class ChangedPassword(msgspec.Struct, frozen=True):
    message: str
    name: str


@operation("self", rest=put("/api/users/{name}/password"), counted_as="users")
async def set_password(call: OperationCall, params: SetPasswordParams) -> ChangedPassword:
    """Set a user's password; durable before this answers.

    One's own with the old one; any with users:admin and all rights of that user, since the password gives them.
    Every token that edged issued to the user ends, also the one that calls, after the reply.
    """
    services, session = call.services, call.session
    name = params.name if params.name is not None else _own_name(call)
    by_old = params.old_password is not None and _is_own(call, name)
    grantor, authority = Grantor(call), call.authority(SELF if by_old else "users:admin")
    authority.check()
    if not by_old:
        _refuse_widening(grantor, services.users.get(name))
    elif params.old_password is not None:
        await _confirm(call, name, params.old_password)
    before = services.users.get(name)
    hashed = await _hash(call, params.password, name)
    # Checked again, since hashing takes time.
    after = services.users.get(name)
    authority.check()
    if not by_old:
        _refuse_widening(grantor, after)
    if after.epoch != before.epoch:
        raise InvalidState(f"user {name!r} was changed meanwhile", hint="ask again", resource="user", id=name)
    record = await services.users.set_password(name, hashed, by=session.id)
    return ChangedPassword("password set", record.name)


async def _confirm(call: OperationCall, name: str, password: str) -> None:
    """Raises InvalidParams unless this is the user's password. The session of the call does not change."""
    try:
        await call.services.logins.enter(
            name, password, call.session.peer.address, call.session.transport, is_near=call.session.is_near
        )
    except Refused:
        raise InvalidParams("old_password is not right", hint="an administrator can set another one") from None


async def _hash(call: OperationCall, password: str, name: str) -> str:
    check_password(password, name)
    return await call.services.passwords.hash(password)


def _own_name(call: OperationCall) -> str:
    caller = call.session.caller
    if caller is None or caller.epoch is None:
        raise InvalidParams("name is required", hint="only a caller who has logged in with a password may omit it")
    return caller.subject


def _is_own(call: OperationCall, name: str) -> bool:
    """Whether the caller is this user, by a token that edged issued."""
    caller = call.session.caller
    return caller is not None and caller.epoch is not None and caller.subject == name


def _refuse_widening(grantor: Grantor, record: UserRecord) -> None:
    grantor.refuse_widening(record.role, record.permissions, record.camera_access, record.streams)


def _read_changes(call: OperationCall, params: UpdateUserParams) -> dict[str, Any]:
    """The changes as fields of UserRecord. Raises InvalidParams."""
    changes: dict[str, Any] = {}
    if params.display_name is not UNSET:
        changes["display_name"] = params.display_name
    if params.role is not UNSET:
        changes["role"] = canonical_role(params.role)
    if params.permissions is not UNSET:
        changes["permissions"] = read_names("permissions", params.permissions)
    if params.camera_access is not UNSET:
        changes["camera_access"] = read_names("camera_access", params.camera_access)
    if params.streams is not UNSET:
        changes["streams"] = read_streams(params.streams)
    if params.disabled is not UNSET:
        held = call.services.users.get(params.name).disabled_at
        changes["disabled_at"] = (call.services.clock.now() if held is None else held) if params.disabled else None
    return changes


def _show(record: UserRecord, services: Services) -> UserItem:
    return UserItem(
        name=record.name,
        display_name=record.display_name,
        role=record.role,
        permissions=None if record.permissions is None else list(record.permissions),
        camera_access=None if record.camera_access is None else list(record.camera_access),
        streams=show_streams(record.streams),
        disabled=record.disabled_at is not None,
        has_password=record.password is not None,
        created_at=iso(record.created_at),
        password_changed_at=None if record.password_changed_at is None else iso(record.password_changed_at),
        effective_permissions=list_effective(record.rights),
        without_effect=list_without_effect(record.permissions, record.camera_access, services.cameras),
    )
