"""How often, from where, with which certificate: each against an oracle or a real one."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import pytest
from certificates import Authority
from hypothesis import given
from hypothesis import strategies as st

from pirl_server.security import rate_limiter as limiter_module
from pirl_server.security.bind_address import check_bind
from pirl_server.security.rate_limiter import Limiter
from pirl_server.security.tls import TlsFiles


class Bucket:
    """The oracle: tokens as a fraction, filled as time goes by."""

    def __init__(self, interval_ns: int, burst: int) -> None:
        self.rate, self.burst, self.tokens, self.then = Fraction(1, interval_ns), burst, Fraction(burst), 0

    def take(self, now: int) -> bool:
        self.tokens = min(Fraction(self.burst), self.tokens + (now - self.then) * self.rate)
        self.then = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@given(
    interval=st.integers(1, 10**9),
    burst=st.integers(1, 50),
    steps=st.lists(st.tuples(st.integers(0, 3 * 10**9), st.sampled_from("ab")), max_size=80),
    dense=st.booleans(),
)
def test_it_decides_as_a_bucket_of_exact_fractions(
    interval: int, burst: int, steps: list[tuple[int, str]], dense: bool
) -> None:
    now = [0]
    limiter = Limiter(interval, burst, clock=lambda: now[0])
    oracles = {name: Bucket(interval, burst) for name in "ab"}
    for pause, name in steps:
        now[0] += pause % (2 * interval) if dense else pause
        assert (limiter.take(name) == 0) == oracles[name].take(now[0])


@given(interval=st.integers(1, 10**9), burst=st.integers(1, 20), pauses=st.lists(st.integers(0, 10**9), max_size=40))
def test_the_wait_it_names_is_exact(interval: int, burst: int, pauses: list[int]) -> None:
    now = [0]
    limiter = Limiter(interval, burst, clock=lambda: now[0])
    for pause in pauses:
        now[0] += pause
        if wait := limiter.take("a"):
            now[0] += wait - 1
            assert limiter.take("a") == 1
            now[0] += 1
            assert limiter.take("a") == 0


def test_names_are_forgotten_before_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter_module, "MAX_NAMES", 3)
    limiter = Limiter(10, 1, clock=lambda: 0)
    assert [limiter.take(name) for name in "abcd"] == [0, 0, 0, 0]
    assert limiter.take("d") == 10
    assert len(limiter._full_at) == 3


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        Limiter.per_second(rate)


def test_a_public_address_needs_both_certificate_and_tokens(caplog: pytest.LogCaptureFixture) -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        check_bind(host, tls=False, tokens=False, allow_insecure=False)
    for tls, tokens, words in (
        (False, False, "a certificate .* and tokens"),
        (True, False, "requires tokens"),
        (False, True, "requires a certificate"),
    ):
        for host in ("0.0.0.0", "::", "192.0.2.7"):
            with pytest.raises(ValueError, match=words):
                check_bind(host, tls=tls, tokens=tokens, allow_insecure=False)
    check_bind("0.0.0.0", tls=True, tokens=True, allow_insecure=False)
    assert caplog.records == []
    check_bind("0.0.0.0", tls=False, tokens=False, allow_insecure=True)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    with pytest.raises(ValueError, match="can't be resolved"):
        check_bind("no-such-host.invalid", tls=True, tokens=False, allow_insecure=True)


def test_certificates_are_checked_before_anything_listens(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    good, other = authority.issue("server"), authority.issue("other")
    old, new = authority.issue("old", (-9, -1)), authority.issue("new", (1, 9))
    (tmp_path / "text").write_text("not PEM")
    TlsFiles(good.cert, good.key, authority.cert).check()
    for files, words in (
        (TlsFiles(good.cert, other.key), "does not belong"),
        (TlsFiles(old.cert, old.key), "expired on"),
        (TlsFiles(new.cert, new.key), "not valid before"),
        (TlsFiles(tmp_path / "none.pem", good.key), "cannot be read: No such file"),
        (TlsFiles(good.cert, tmp_path / "text"), "not a PEM private key"),
        (TlsFiles(tmp_path / "text", good.key), "holds no PEM certificate"),
        (TlsFiles(good.cert, good.key, old.cert), "expired on"),
    ):
        with pytest.raises(ValueError, match=words):
            files.check()
