"""Access control: each part of a source's rule and all together, over a real socket."""

import asyncio
import base64
import ipaddress

import msgspec
import pytest
from prometheus_client import REGISTRY

from deploy.local.ports import HOST
from ingest.access_control.password_checks import MAX_WAITING
from ingest.access_control.policy import AccessControl
from shared.errors import SettingsError
from shared.settings import password
from shared.settings.password import Hashed
from shared.settings.settings import Settings
from shared.settings.sources import BasicAuthUser, Rule
from shared.settings.units import Names, Networks, parse_networks
from tests.support.answering import answering

TOKEN = "6ZbQ-9.x_Ltoken~0123"
HASHED = password.hashed(b"correct:horse")
USER = BasicAuthUser(b"mms", HASHED)


def ruled(**rules: Rule) -> Settings:
    return Settings(sources=Names(("default", *rules)), rules=rules)


def basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


async def test_a_token_in_the_path() -> None:
    other = TOKEN[::-1]
    async with answering(ruled(acme=Rule(token=(TOKEN, other)))) as server:
        assert await server.status(f"/postbacks/acme/{TOKEN}") == 200
        assert await server.status(f"/postbacks/acme/{other}") == 200
        assert await server.status(f"/postbacks/acme/{TOKEN}?x=1") == 200
        assert [each.source for each in server.arrivals] == ["acme"] * 3
        for wrong in ("", "/", f"/{TOKEN}x", f"/{TOKEN[:-1]}", "/%ff"):
            assert await server.status(f"/postbacks/acme{wrong}") == 403
        assert await server.status(f"/postbacks/acme/{TOKEN}/") == 404
        assert await server.status(f"/postbacks/{TOKEN}") == 404
        assert await server.status("/postbacks") == 200
        assert await server.status(f"/postbacks/default/{TOKEN}") == 404  # its rule has no token
        assert TOKEN.encode() not in await server.post(f"/postbacks/acme/{TOKEN}x")


async def test_a_token_of_the_default_source() -> None:
    async with answering(Settings(rules={"default": Rule(token=(TOKEN,))})) as server:
        assert await server.status(f"/postbacks/default/{TOKEN}") == 200
        assert await server.status("/postbacks") == 403
        assert await server.status("/postbacks/default") == 403


async def test_basic(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes: list[bytes] = []
    matches = Hashed.matches

    def counted(hashed: Hashed, candidate: bytes) -> bool:
        hashes.append(candidate)
        return matches(hashed, candidate)

    monkeypatch.setattr(Hashed, "matches", counted)
    async with answering(ruled(acme=Rule(basic=(USER,)))) as server:
        path = "/postbacks/acme"
        for _ in range(3):
            assert await server.status(path, Authorization=basic("mms", "correct:horse")) == 200
            assert await server.status(path, Authorization=basic("mms", "wrong")) == 401
        assert hashes == [b"correct:horse", b"wrong"]  # once each
        for header in (basic("nobody", "correct:horse"), "Basic %", "Bearer x", "Basic", "\xff"):
            assert await server.status(path, Authorization=header) == 401
        # A user that does not exist costs as much as one that does; other schemes cost nothing.
        assert hashes == [b"correct:horse", b"wrong", b"correct:horse"]
        response = await server.post(path)
        assert b" 401 " in response
        assert b"\r\nWWW-Authenticate: Basic " in response
        assert len(hashes) == 3
        assert len(server.arrivals) == 3


async def test_many_requests_with_the_same_password_share_one_check() -> None:
    """As when the provider reconnects on all its connections after a restart."""
    async with answering(ruled(acme=Rule(basic=(USER,)))) as server:
        header = basic("mms", "correct:horse")
        posts = [server.status("/postbacks/acme", Authorization=header) for _ in range(64)]
        assert set(await asyncio.gather(*posts)) == {200}


async def test_guesses_wait_in_a_short_queue() -> None:
    async with answering(ruled(acme=Rule(basic=(USER,)))) as server:
        path = "/postbacks/acme"
        assert await server.status(path, Authorization=basic("mms", "correct:horse")) == 200
        guesses = [
            asyncio.create_task(server.status(path, Authorization=basic("mms", f"guess-{number}")))
            for number in range(2 * MAX_WAITING)
        ]
        # A known password is allowed meanwhile.
        assert await server.status(path, Authorization=basic("mms", "correct:horse")) == 200
        statuses = await asyncio.gather(*guesses)
        assert set(statuses) == {401, 503}
        assert statuses.count(401) >= MAX_WAITING


async def test_a_first_login_is_checked_before_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same address; counts the guesses that are checked before it."""
    checked: list[bytes] = []
    matches = Hashed.matches

    def counted(hashed: Hashed, candidate: bytes) -> bool:
        checked.append(candidate)
        return matches(hashed, candidate)

    monkeypatch.setattr(Hashed, "matches", counted)
    async with answering(ruled(acme=Rule(basic=(USER,)))) as server:
        guessed = asyncio.Event()
        guesses = 40

        async def guess(number: int) -> None:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            try:
                for attempt in range(1000):
                    header = basic("mms", f"guess-{number}-{attempt}")
                    writer.write(
                        f"POST /postbacks/acme HTTP/1.1\r\nHost: x\r\nAuthorization: {header}\r\n"
                        "Content-Length: 1\r\n\r\nx".encode()
                    )
                    await reader.readuntil(b"\r\n\r\n")
                    if len(checked) > 3 * guesses:
                        guessed.set()
            finally:
                writer.close()

        async with asyncio.TaskGroup() as guessing:
            tasks = [guessing.create_task(guess(number)) for number in range(guesses)]
            await guessed.wait()
            before = len(checked)
            right = basic("mms", "correct:horse")
            assert await server.status("/postbacks/acme", Authorization=right) == 200
            assert checked[before:].index(b"correct:horse") <= 2
            # A known password is not checked again.
            assert await server.status("/postbacks/acme", Authorization=right) == 200
            assert checked.count(b"correct:horse") == 1
            for task in tasks:
                task.cancel()


async def test_a_refusal_is_counted_and_logged_once_without_the_body(
    caplog: pytest.LogCaptureFixture,
) -> None:
    labels = {"status": "403", "source": "logged"}
    async with answering(ruled(logged=Rule(token=(TOKEN,)))) as server:
        for _ in range(5):
            assert await server.status(f"/postbacks/logged/{TOKEN[::-1]}", body=b"hush") == 403
    assert REGISTRY.get_sample_value("mms_ingest_answers_total", labels) == 5
    lines = [line for line in caplog.messages if "source logged" in line]
    assert lines == [
        "postbacks of source logged are refused with 403: the token in the path is missing or wrong"
    ]


async def test_an_allow_list() -> None:
    rules = {
        "near": Rule(allow=parse_networks("127.0.0.0/8")),
        "far": Rule(allow=parse_networks("192.0.2.0/24")),
    }
    async with answering(ruled(**rules)) as server:
        assert await server.status("/postbacks/near") == 200
        assert await server.status("/postbacks/far") == 403
        assert await server.status("/postbacks/far", X_Forwarded_For="192.0.2.1") == 403


async def test_an_allow_list_behind_a_proxy() -> None:
    settings = msgspec.structs.replace(
        ruled(far=Rule(allow=parse_networks("192.0.2.0/24"))),
        trusted_proxies=Networks((ipaddress.ip_network("127.0.0.1"),)),
    )
    async with answering(settings) as server:
        for forwarded, status in {
            "192.0.2.1": 200,
            "203.0.113.1, 192.0.2.1": 200,
            "192.0.2.1, 203.0.113.1": 403,
            "192.0.2.1, unknown": 403,
        }.items():
            assert await server.status("/postbacks/far", X_Forwarded_For=forwarded) == status
        assert await server.status("/postbacks/far") == 403


async def test_all_parts_must_hold() -> None:
    rule = Rule(token=(TOKEN,), basic=(USER,), allow=parse_networks("127.0.0.1"))
    async with answering(ruled(acme=rule)) as server:
        right = basic("mms", "correct:horse")
        assert await server.status(f"/postbacks/acme/{TOKEN}", Authorization=right) == 200
        assert await server.status(f"/postbacks/acme/{TOKEN}") == 401
        assert await server.status("/postbacks/acme", Authorization=right) == 403
        assert len(server.arrivals) == 1


async def test_the_rate_limit_of_a_source() -> None:
    settings = msgspec.structs.replace(
        ruled(acme=Rule(token=(TOKEN,)), free=Rule(rate=0)), rate_per_source=2.0
    )
    async with answering(settings) as server:
        for _ in range(5):
            assert await server.status("/postbacks/acme/wrong") == 403  # takes no token
        statuses = [await server.status(f"/postbacks/acme/{TOKEN}") for _ in range(5)]
        assert statuses[:2] == [200, 200]
        assert 429 in statuses
        responses = [await server.post(f"/postbacks/acme/{TOKEN}") for _ in range(3)]
        refused = next(response for response in responses if b" 429 " in response)
        assert b"\r\nRetry-After: 1\r\n" in refused
        assert [await server.status("/postbacks") for _ in range(2)] == [200, 200]
        assert [await server.status("/postbacks/free") for _ in range(6)] == [200] * 6


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "ingest.example.net"])
def test_it_does_not_listen_on_a_network_without_rules(host: str) -> None:
    settings = msgspec.structs.replace(
        ruled(acme=Rule(token=(TOKEN,)), other=Rule(rate=1)), ingest_host=host
    )
    with pytest.raises(SettingsError, match="for default, other") as raised:
        AccessControl(settings)
    assert "MMS_OPEN=1" in str(raised.value)
    AccessControl(msgspec.structs.replace(settings, open=True))
    AccessControl(msgspec.structs.replace(settings, sources=Names(("acme",))))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_the_loopback_it_is_open(host: str) -> None:
    policy, _ = AccessControl(Settings(ingest_host=host)).policy("/postbacks")
    assert policy is not None
    assert policy.open
