"""reactions/signing_keys.py: keys change by themselves, in time for whoever keeps our JWKS, by a good clock only."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from keyring_helpers import HOUR, START, Bench, Time, kid_of_token, opened
from patience import IS_FULL
from trust_helpers import BrokenCommits

from edged.credentials.signing_keys import PUBLISHED_SECONDS
from edged.reactions.signing_keys import LOOK_SECONDS, Rotation

DAY = 24 * HOUR
DAYS = 90


async def live(bench: Bench, seconds: float, *, step: float = 600.0, rotation: Rotation | None = None) -> Rotation:
    """So much time passes, with a look now and then."""
    rotation = rotation or Rotation(bench.keyring, bench.clock, DAYS, bench.grant)
    passed = 0.0
    while passed < seconds:
        bench.time.pass_(min(step, seconds - passed))
        passed += step
        await rotation.look()
    return rotation


async def test_the_next_key_is_made_two_hours_before_and_signs_two_hours_later(tmp_path: Path) -> None:
    """Of both algorithms; before that nothing happens, and the next one is due as long after."""
    async with opened(tmp_path / "trust.db") as bench:
        await live(bench, DAYS * DAY - PUBLISHED_SECONDS - 1, step=HOUR)
        assert bench.states() == {"key-1": "current", "key-2": "current"}
        await live(bench, 60)
        assert bench.states() == {"key-1": "current", "key-2": "current", "key-3": "next", "key-4": "next"}
        assert bench.published() == ["key-1", "key-2", "key-3", "key-4"]
        await live(bench, PUBLISHED_SECONDS - 60, step=60)
        assert kid_of_token(await bench.sign()) == "key-2"
        await live(bench, 60)
        assert bench.states() == {"key-1": "retired", "key-2": "retired", "key-3": "current", "key-4": "current"}
        assert kid_of_token(await bench.sign()) == "key-4"
        await live(bench, DAYS * DAY + HOUR, step=HOUR)
        assert [kid for kid, state in bench.states().items() if state == "current"] == ["key-5", "key-6"]


async def test_every_token_verifies_and_its_key_was_fetched_in_time(tmp_path: Path) -> None:
    """Two months, and a verifier that fetches the JWKS once an hour and knows nothing else: it takes every token."""
    async with opened(tmp_path / "trust.db") as bench:
        rotation = Rotation(bench.keyring, bench.clock, 10, bench.grant)
        cached: list[str] = []
        told: list[tuple[str, float]] = []
        signers = set()
        for hour in range(24 * 60):
            cached = bench.published()
            for _ in range(2):
                await live(bench, HOUR / 2, rotation=rotation, step=HOUR / 2)
                if hour % 6 == 0:
                    text = await bench.sign(seconds=DAY)
                    signers.add(kid_of_token(text))
                    told.append((text, bench.time.system + DAY - 1))
                told = [(text, end) for text, end in told if end > bench.time.system]
                assert all(kid_of_token(text) in cached for text, _ in told)
                assert all(bench.takes(text) for text, _ in told[:: 1 if IS_FULL else 4])
        assert len(signers) == 6


@pytest.mark.parametrize("hours", [0, 0.5, 1.9, 2, 2.1, 5, 50])
async def test_a_restart_in_any_state_goes_on_from_there(tmp_path: Path, hours: float) -> None:
    """Before the next key is made, while it waits, when it should sign already: nothing is made twice."""
    async with opened(tmp_path / "trust.db") as bench:
        await live(bench, DAYS * DAY - 2.5 * HOUR, step=HOUR)
        await live(bench, 1.0 * HOUR)
        made = len(bench.keyring.all())
        assert made == 4
    bench.time.pass_(hours * HOUR)
    # Another run of the program: its monotonic clock begins anew.
    time = Time(system=bench.time.system, monotonic=7.0)
    async with opened(tmp_path / "trust.db", time) as bench:
        await live(bench, 2.1 * HOUR)
        assert bench.states() == {"key-1": "retired", "key-2": "retired", "key-3": "current", "key-4": "current"}
        assert not any(record.private for record in bench.keyring.all()[:2])


async def test_a_box_that_was_off_when_its_keys_were_due_still_publishes_first(tmp_path: Path) -> None:
    """Half a year in a drawer: the next keys are made at the first look and sign two hours later, not sooner."""
    async with opened(tmp_path / "trust.db") as bench:
        pass
    time = Time(system=START + 180 * DAY)
    async with opened(tmp_path / "trust.db", time) as bench:
        await live(bench, 60)
        assert bench.states() == {"key-1": "current", "key-2": "current", "key-3": "next", "key-4": "next"}
        await live(bench, PUBLISHED_SECONDS - 60)
        assert bench.states()["key-3"] == "next"
        await live(bench, 60)
        assert bench.states()["key-3"] == bench.states()["key-4"] == "current"


async def test_without_a_trusted_clock_nothing_happens(tmp_path: Path) -> None:
    """Whatever time it seems to be: neither a new key nor a promotion; once it is trusted, what is due is done."""
    async with opened(tmp_path / "trust.db") as bench:
        bench.time.trusted = False
        rotation = await live(bench, 400 * DAY, step=DAY)
        assert bench.states() == {"key-1": "current", "key-2": "current"}
        bench.time.trusted = True
        await live(bench, 60, rotation=rotation)
        bench.time.trusted = False
        await live(bench, DAY, rotation=rotation, step=HOUR)
        assert bench.states() == {"key-1": "current", "key-2": "current", "key-3": "next", "key-4": "next"}
        bench.time.trusted = True
        await live(bench, 60, rotation=rotation)
        assert bench.states()["key-3"] == "current"


async def test_a_step_of_the_clock_makes_no_key_older(tmp_path: Path) -> None:
    """A year ahead within an hour: verifiers have not fetched it; a year back: they have, two real hours later."""
    async with opened(tmp_path / "trust.db") as bench:
        rotation = await live(bench, (DAYS * DAY) - HOUR, step=HOUR)
        assert bench.states()["key-3"] == "next"
        bench.time.system += 365 * DAY
        await live(bench, 0.5 * HOUR, rotation=rotation)
        assert bench.states()["key-3"] == "next"
        bench.time.system -= 365 * DAY
        await live(bench, 2 * HOUR, rotation=rotation)
        assert bench.states()["key-3"] == "current"


async def test_keys_from_a_time_that_never_came_are_replaced(tmp_path: Path) -> None:
    """Made and promoted while the clock said 2099: their age is unknown, so they are due; also a waiting one counts
    from when this run first published it."""
    time = Time(system=START + 70 * 365 * DAY)
    async with opened(tmp_path / "trust.db", time) as bench:
        await bench.keyring.create(bench.grant, "ES256")
    async with opened(tmp_path / "trust.db", Time()) as bench:
        rotation = await live(bench, 60)
        assert bench.states() == {"key-1": "current", "key-2": "current", "key-3": "next", "key-4": "next"}
        await live(bench, PUBLISHED_SECONDS, rotation=rotation)
        assert bench.states() == {"key-1": "retired", "key-2": "retired", "key-3": "current", "key-4": "current"}
        await live(bench, 30 * DAY, rotation=rotation, step=HOUR)
        assert len(bench.states()) == 4


async def test_a_step_back_of_some_hours_rotates_nothing(tmp_path: Path) -> None:
    """A clock that is set right by less than a day is no lie about age."""
    async with opened(tmp_path / "trust.db") as bench:
        bench.time.system -= 20 * HOUR
        await live(bench, DAY, step=HOUR)
        assert len(bench.states()) == 2


async def test_a_next_key_made_by_hand_is_the_one_that_follows(tmp_path: Path) -> None:
    """No second one is made; it waits until it is due."""
    async with opened(tmp_path / "trust.db") as bench:
        await bench.keyring.create(bench.grant, "ES256")
        rotation = await live(bench, DAYS * DAY - HOUR, step=HOUR)
        assert bench.states() == {"key-1": "current", "key-2": "current", "key-3": "next", "key-4": "next"}
        assert [bench.keyring.get(kid).algorithm for kid in ("key-3", "key-4")] == ["ES256", "RS256"]
        await live(bench, HOUR, rotation=rotation)
        assert bench.states()["key-3"] == "current"


async def test_a_disk_that_fails_delays_and_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The old key signs on; the change comes with the first look after the disk is mended, and each is one line."""
    async with opened(tmp_path / "trust.db") as bench:
        rotation = await live(bench, DAYS * DAY - 3 * HOUR, step=HOUR)
        capsys.readouterr()
        broken = await BrokenCommits(bench.db).begin()
        await live(bench, 3 * HOUR, rotation=rotation)
        assert bench.states() == {"key-1": "current", "key-2": "current"}
        said = capsys.readouterr().out
        assert said.count("rotation_waits") == 2
        await broken.mend()
        await live(bench, 2 * HOUR + 60, rotation=rotation, step=60)
        assert bench.states()["key-3"] == bench.states()["key-4"] == "current"
        lines = [line for line in capsys.readouterr().out.splitlines() if "key-3" in line]
        assert ["created" in line or "promoted" in line for line in lines] == [True, True]


async def test_0_days_is_never(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    """The task only waits; by hand everything works as before."""
    async with opened(tmp_path / "trust.db") as bench:
        bench.time.pass_(4000 * DAY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Rotation(bench.keyring, bench.clock, 0, bench.grant).run)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(50)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert bench.states() == {"key-1": "current", "key-2": "current"}


async def test_the_task_checks_each_minute(tmp_path: Path) -> None:
    """What is due is done without anybody asking."""
    async with opened(tmp_path / "trust.db") as bench:
        bench.time.pass_(DAYS * DAY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Rotation(bench.keyring, bench.clock, DAYS, bench.grant).run)
            while len(bench.states()) < 4:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert LOOK_SECONDS * 10 < PUBLISHED_SECONDS
