"""Logins: who shows a user's name and password. Asked by the few endpoints that take passwords, never by the gate,
which does not wait: one argon2 at a time (accounts.passwords), after the limiter.

Whoever fails is told the same in the same time, whether there is such a user or not. From outside this machine, also
through a proxy on it, a password that nobody may choose, as the one of the demo's user, is a wrong one (contract C-48).
"""

from __future__ import annotations

import trio

from edged.access.gate import Gate
from edged.access.limiter import Limiter
from edged.accounts.passwords import Passwords, Verified
from edged.accounts.registrar import Registrar
from edged.accounts.users import Users
from edged.accounts.wrong_passwords import NOBODY, WrongPasswords
from edged.credentials.callers import Transport
from edged.credentials.decision import Reason
from edged.credentials.passwords import check_password
from edged.credentials.places import place_of
from edged.credentials.users import UserRecord
from edged.errors import InvalidParams, Refused


class Logins:
    """Looks at passwords."""

    def __init__(
        self,
        users: Users,
        passwords: Passwords,
        limiter: Limiter,
        gate: Gate,
        registrar: Registrar,
        *,
        is_demo: bool,
    ) -> None:
        """`is_demo`: passwords that nobody may choose are taken from who is on this very machine (contract C-48)."""
        self.is_demo = is_demo
        self._wrong = WrongPasswords()
        self._users = users
        self._passwords = passwords
        self._limiter = limiter
        self._gate = gate
        self._registrar = registrar

    def load(self) -> None:
        """Tell what stored hashes cost: whoever does not exist takes as long as whoever does."""
        for user in self._users.all():
            if user.password is not None:
                self._passwords.heed(user.password)

    async def enter(
        self, name: str, password: str, address: str, transport: Transport, *, is_near: bool
    ) -> tuple[UserRecord, int]:
        """The user whose name and password these are, as they are now, and the epoch of a token that is made for them
        now: a change that ends tokens either came before both or ends it. `address` as the kernel gives it; `is_near`:
        they are on this very machine, and nobody asks through them.

        Raises Refused ("Invalid credentials", whatever is wrong; the log says more), RateLimited, and StoreFailed or
        Overloaded while no token can be made.
        """
        self._limiter.check(address, name)
        before, verified = await self._verify(name, password, address)
        if before is None or not verified.good or not ((self.is_demo and is_near) or _may_choose(password, name)):
            self._limiter.failed(address, name, password)
            raise self._refused(Reason.UNKNOWN_KEY, transport)
        epoch = await self._registrar.epoch()
        user = self._users.find(name)
        if user is None or user.epoch != before.epoch:
            # Meanwhile they were given another password or other rights, or deleted.
            raise self._refused(Reason.UNKNOWN_KEY, transport)
        if self._users.is_revoked(name):
            raise self._refused(Reason.REVOKED, transport)
        if user.disabled_at is not None or self._users.awaits_confirmation:
            raise self._refused(Reason.SUSPENDED, transport)
        self._limiter.succeeded(address, name)
        self._gate.note_entry("password", transport, user.rights.role)
        stored = before.password
        if stored is not None and verified.rehashed is not None:
            self._users.rehash(name, stored, verified.rehashed)
        return user, epoch

    async def _verify(self, name: str, password: str, address: str) -> tuple[UserRecord | None, Verified]:
        """The user of this name as they were when their password was compared, and what came of it."""
        user = self._users.find(name)
        mark = self._wrong.mark(name, password, NOBODY if user is None else user.epoch)
        async with self._wrong.alone(mark):
            if not self._wrong.knows(mark):
                verified = await self._passwords.verify(
                    None if user is None else user.password,
                    password,
                    is_known=self._limiter.knows(address, name),
                    shares=(f"place {place_of(address)}", f"name {name}") if address else (),
                )
                if not verified.good:
                    self._wrong.note(mark)
                return user, verified
        # As long as a hash takes, and without one: whoever shows the same again holds no core. Many do so side by side;
        # one after the other they would be answered minutes later.
        await trio.sleep(self._passwords.usual_seconds)
        return user, Verified(good=False)

    def confirm(self, user: UserRecord, transport: Transport) -> None:
        """Asked right before a token is told that was made for a login: raises Refused if it is worth nothing by now,
        or just now."""
        now = self._users.find(user.name)
        if now is None or now.epoch != user.epoch or self._users.is_revoked(user.name):
            raise self._refused(Reason.REVOKED, transport)
        if now.disabled_at is not None:
            raise self._refused(Reason.SUSPENDED, transport)

    def _refused(self, reason: Reason, transport: Transport) -> Refused:
        problem = self._gate.refuse(reason, "password", transport)
        problem.sentence = "Invalid credentials"
        problem.hint = "this user name and this password do not belong together: log in again with others"
        return problem


def _may_choose(password: str, name: str) -> bool:
    """Whether a password that is right is good enough for anywhere."""
    try:
        check_password(password, name)
    except InvalidParams:
        return False
    return True
