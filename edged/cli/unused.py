"""What libraries import for others and a daemon never uses: not imported while it starts.

Each costs a start and holds memory for ever after (docs/promises.md).
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType

_executing = RLock()


@contextmanager
def absent(name: str) -> Iterator[None]:
    """While the block runs, importing this package fails as if it were not installed.

    structlog takes rich along where it finds it, for tracebacks in colour that no daemon prints: 3 MB, and a tenth
    of the start.
    """
    if name in sys.modules:
        yield
        return
    # None: importlib raises ModuleNotFoundError (docs of sys.modules).
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


class _Late(ModuleType):
    """A module that is executed when somebody asks it for a name that it does not have yet.

    importlib.util.LazyLoader does it at any access, and not safely in threads before Python 3.13.
    """

    def __getattr__(self, name: str) -> object:
        with _executing:
            if type(self) is _Late:
                self.__class__ = ModuleType  # type: ignore[assignment]
                assert self.__spec__ is not None
                assert self.__spec__.loader is not None
                self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def put_off() -> None:
    """Make it cheap to import what libraries name and a daemon does not use.

    * asyncio (33 modules, 1.5 MB): structlog names it for those whose loop it is; before Python 3.13 starlette takes
      one function of it. Python 3.12 and later would execute it for the first record of a log, to name its task.
    * importlib.metadata (20 modules, 0.7 MB): websockets asks it for the version of itself where it is no release.
    """
    vars(logging)["logAsyncioTasks"] = False
    _put_off("asyncio", iscoroutinefunction=inspect.iscoroutinefunction)
    importlib.metadata = _put_off("importlib.metadata")


def _put_off(name: str, **known: object) -> ModuleType:
    """The module, which is executed once it is asked for a name that is not among those `known`."""
    if name in sys.modules:
        return sys.modules[name]
    spec = find_spec(name)
    assert spec is not None, name
    module = module_from_spec(spec)
    module.__class__ = _Late
    vars(module).update(known)
    sys.modules[name] = module
    return module
