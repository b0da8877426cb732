"""The declarations of operations, and the one place that calls them.

`@operation` attaches a declaration to a function; `operations/__init__` gathers them. A call is: find, validate the
params, ask the gate, run, count. A plain function answers from memory in the task that read the request; a coroutine
function may wait and runs in a task of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from edged.access.authority import Asker
from edged.access.grants import Grant
from edged.cameras.model import Camera
from edged.credentials.callers import NOTHING, Resource
from edged.credentials.roles import CAPABILITIES, OPEN, SELF
from edged.errors import CameraNotFound, EdgedError, Refused
from edged.operations.not_built import unknown_method
from edged.operations.params import NoParams as NoParams
from edged.operations.params import read_params
from edged.operations.rest import Rest

if TYPE_CHECKING:
    from edged.operations.caller_sessions import Session
    from edged.operations.services import Services


class DeviceParams(msgspec.Struct, frozen=True):
    """Params of an operation on one camera: `cameraN`, its path at MediaMTX, or `/dev/videoN`."""

    device: str


class OperationCall(msgspec.Struct):
    """One call of an operation: the services, the session that calls, and the camera that the params name, if any."""

    services: Services
    session: Session
    operation: Operation
    _camera: Camera | None = None

    @property
    def camera(self) -> Camera:
        """The camera that the params name; only for operations that are declared `on_camera`."""
        assert self._camera is not None, f"{self.operation.name} is not declared on_camera"
        return self._camera

    def authority(self, capability: str, *further: Callable[[], None]) -> Asker:
        """The right by which the caller is granted something, checked again before the commit (access.authority)."""
        return Asker(self.services.gate, self.session.caller, capability, self.session.transport, further)

    def grant(self, capability: str, *further: Callable[[], None]) -> Grant:
        """What a part that changes trust.db is handed: this right, and the way to the disk (access.grants)."""
        return self.services.registrar.granting(self.authority(capability, *further))


class Operation(msgspec.Struct, frozen=True):
    """A declaration; `capability` is a capability, "self" (any good credential) or "none"."""

    name: str
    capability: str
    params: type[msgspec.Struct]
    run: Callable[[OperationCall, Any], Any]
    waits: bool
    on_camera: bool
    summary: str
    #: Needs no credential, but one that is shown must be good.
    minds_caller: bool = False
    #: Its route, or why it has none; `no_command`: why no command of `edged` calls it.
    rest: Rest | None = None
    no_rest: str = ""
    no_command: str = ""
    #: Its label in the metrics.
    counted_as: str = ""


Declared: TypeAlias = Callable[[OperationCall, Any], Any]
D = TypeVar("D", bound=Declared)


def operation(
    capability: str,
    *,
    name: str | None = None,
    on_camera: bool = False,
    minds_caller: bool = False,
    rest: Rest | None = None,
    no_rest: str = "",
    no_command: str = "",
    counted_as: str = "",
) -> Callable[[D], D]:
    """Declare a function `(call, params: Struct) → result` as an operation.

    With `on_camera`, `params.device` is resolved to a camera, and `capability` is asked for that camera; a camera that
    the caller may not see is "not found", never "denied" (contract 4b). `minds_caller`: no credential is needed, but
    one that is shown must be good. `rest` is its route; `no_rest` and `no_command` say why there is none. `counted_as`
    is its label in the metrics (default: its name); rarely called operations share one, so that the series stay few.
    """

    def attach(function: D) -> D:
        params = list(inspect.signature(function, eval_str=True).parameters.values())[1].annotation
        function.__operation__ = Operation(  # type: ignore[attr-defined]
            name or function.__name__,
            capability,
            params,
            function,
            inspect.iscoroutinefunction(function),
            on_camera,
            inspect.getdoc(function) or "",
            minds_caller,
            rest,
            no_rest,
            no_command,
            counted_as or name or function.__name__,
        )
        return function

    return attach


class Catalogue:
    """All operations by name, frozen; they are called by this class only."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        """Raises ValueError for an operation without a known capability: default deny at start-up."""
        table: dict[str, Operation] = {}
        for item in operations:
            if item.capability not in CAPABILITIES and item.capability not in (OPEN, SELF):
                raise ValueError(f"operation {item.name!r} names no known capability: {item.capability!r}")
            if item.name in table:
                raise ValueError(f"two operations are named {item.name!r}")
            table[item.name] = item
        self.operations: Mapping[str, Operation] = MappingProxyType(table)

    @classmethod
    def gather(cls, *modules: object) -> Catalogue:
        """Every declared function of these modules."""
        found = (item for module in modules for item in vars(module).values() if isinstance(item, FunctionType))
        return cls(item.__operation__ for item in found if hasattr(item, "__operation__"))

    def find(self, name: str) -> Operation:
        """Raises UnknownMethod, NotBuilt."""
        item = self.operations.get(name)
        if item is None:
            raise unknown_method(name)
        return item

    def start(
        self, item: Operation, params: msgspec.Raw | Mapping[str, object] | None, services: Services, session: Session
    ) -> Any:
        """Validate the params, ask the gate, and run. Returns the result; of an operation that waits, a coroutine of
        it.

        Raises EdgedError: InvalidParams, Refused, CameraNotFound, or what the operation raises.
        """
        try:
            given = read_params(item.params, params)
            if session.caller is not None:
                # The rights of its key may have changed since it authenticated.
                session.caller = services.gate.current(session.caller)
            call = OperationCall(services, session, item)
            if item.on_camera:
                call._camera = find_camera(item.capability, given.device, services, session)  # type: ignore[attr-defined]
            elif item.capability != OPEN:
                services.gate.authorize(session.caller, item.capability, session.transport)
            if item.waits:
                return self._wait(item, call, given, services)
            result = item.run(call, given)
        except EdgedError as problem:
            services.counts.rpc_answered(item.name, problem.slug)
            raise
        services.counts.rpc_answered(item.name, "ok")
        return result

    async def call(
        self, name: str, params: msgspec.Raw | Mapping[str, object] | None, services: Services, session: Session
    ) -> Any:
        """`find` and `start` in one, whether the operation waits or not."""
        result = self.start(self.find(name), params, services, session)
        return await result if inspect.isawaitable(result) else result

    async def _wait(self, item: Operation, call: OperationCall, given: msgspec.Struct, services: Services) -> Any:
        running: Awaitable[Any] = item.run(call, given)
        try:
            result = await running
        except EdgedError as problem:
            services.counts.rpc_answered(item.name, problem.slug)
            raise
        services.counts.rpc_answered(item.name, "ok")
        return result


def find_camera(capability: str, device: str, services: Services, session: Session) -> Camera:
    """The camera of this name, if the caller of the session has this capability on it.

    Raises CameraNotFound also for a camera that the caller may not see, Refused for a caller without a good credential
    or without the capability on any camera.
    """
    camera = services.cameras.find(device)
    # Without such a camera the capability alone is asked for: a caller who has it nowhere is refused.
    resource = camera_resource(camera) if camera else NOTHING
    try:
        services.gate.authorize(session.caller, capability, session.transport, resource)
    except Refused as problem:
        partly = problem.reason == "missing_scope" and services.gate.judge(session.caller, capability).allowed
        if partly or problem.reason == "camera_denied":
            raise CameraNotFound(device) from problem
        raise
    if camera is None:
        raise CameraNotFound(device)
    return camera


def camera_resource(camera: Camera) -> Resource:
    """The camera as a resource for the gate."""
    return Resource(camera.name, camera.names, "" if camera.path == camera.name else camera.path)


#: Members that stateless clients send with every call; never params of an operation (contract 3).
CREDENTIAL_MEMBERS = ("auth_token", "token", "auth_type")
