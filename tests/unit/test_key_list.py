"""The list of log keys: exactly one key per checkpoint, and one clear error for each mistake in the file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.ledger.key_list import MAX_BYTES, read_block, read_key_list, write_block, write_key_list
from grantledger.ledger.keys import KeyFormatError, LocalSigner, LogKey, LogKeys, LogSigners, public_pem

SIGNERS = [LocalSigner.generate() for _ in range(5)]
KEYS = [signer.public_key for signer in SIGNERS]
LOGS = ["d/access.lifecycle/0", "d/access.findings/0", "d/anchors/0"]
FIRST = {f"{log}/0": 3 for log in LOGS}
PEMS = [public_pem(key).decode() for key in KEYS]
LATER = "".join(f"{origin} 3\n" for origin in sorted(FIRST))


@st.composite
def rotations(draw: st.DrawFn) -> list[dict[str, tuple[int, int]]]:
    """Where each later key begins, by log: logs appear, grow and open epochs between two rotations."""
    begins: list[dict[str, tuple[int, int]]] = []
    now = {LOGS[0]: (0, 1)}
    for _ in range(draw(st.integers(0, len(KEYS) - 1))):
        for log in LOGS:
            epoch, size = now.get(log, (0, 0))
            if draw(st.booleans()):
                now[log] = (epoch, size + draw(st.integers(1, 3)))
            elif log in now and draw(st.booleans()):
                now[log] = (epoch + 1, draw(st.integers(1, 3)))
        begins.append(dict(now))
    return begins


def list_of(begins: list[dict[str, tuple[int, int]]]) -> LogKeys:
    later = [{f"{log}/{epoch}": size for log, (epoch, size) in one.items()} for one in begins]
    return LogKeys((LogKey(KEYS[0]), *(LogKey(key, sizes) for key, sizes in zip(KEYS[1:], later, strict=False))))


@given(rotations())
def test_exactly_one_key_signs_each_checkpoint_and_keys_never_go_back(begins: list[dict[str, tuple[int, int]]]) -> None:
    keys = list_of(begins)
    for log in LOGS:
        used = []
        for place in [(epoch, size) for epoch in range(6) for size in range(16)]:
            number = KEYS.index(keys.at(f"{log}/{place[0]}", place[1]))
            assert number == sum(log not in one or one[log] <= place for one in begins)
            used.append(number)
        assert used == sorted(used)


@given(rotations())
def test_a_list_that_is_written_is_read(begins: list[dict[str, tuple[int, int]]]) -> None:
    keys = list_of(begins)
    assert read_key_list(write_key_list(keys)) == keys
    assert all(read_block(write_block(key)) == key for key in keys.keys)


def test_a_deployment_whose_key_never_changed_has_the_plain_pem() -> None:
    keys = LogKeys.single(KEYS[0])
    assert write_key_list(keys) == public_pem(KEYS[0])
    assert read_key_list(b"# a note\n\n" + public_pem(KEYS[0]).replace(b"\n", b"\r\n")) == keys
    assert keys.at("no origin", 1) == KEYS[0]


def test_what_is_no_log_is_never_signed_by_an_old_key() -> None:
    assert LogKeys((LogKey(KEYS[0]), LogKey(KEYS[1], FIRST))).at("no origin", 1) == KEYS[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no public key"),
        ("nonsense", "line 1: neither"),
        (LATER + PEMS[0], "line 4: first sizes stand before the first key"),
        (PEMS[0] + PEMS[1], "line 4: no first sizes"),
        (PEMS[0] + LATER + PEMS[0], "line 7: this key is in the list already"),
        (PEMS[0] + LATER, "line 6: first sizes at the end"),
        (PEMS[0] + LATER + PEMS[1][:40], "line 7: the public key has no END PUBLIC KEY"),
        (PEMS[0] + "d/access.lifecycle/0/0 03\n" + PEMS[1], "line 4: neither"),
        (PEMS[0] + "d/access.lifecycle/0/0 -3\n" + PEMS[1], "line 4: neither"),
        (PEMS[0] + "d/access.lifecycle/0 3\n" + PEMS[1], "line 4: origin"),
        (PEMS[0] + "d/access.lifecycle/0/0 3\nd/access.lifecycle/0/0 3\n" + PEMS[1], "line 5: .* listed twice"),
        (PEMS[0] + "d/access.lifecycle/0/0 3\nd/access.lifecycle/0/1 3\n" + PEMS[1], "line 6: .* two epochs"),
        (PEMS[0] + LATER + PEMS[1] + "d/access.lifecycle/0/0 4\n" + PEMS[2], r"line 11: d/access\S+ is missing"),
        (PEMS[0] + LATER + PEMS[1] + LATER.replace("/0 3", "/0 2", 1) + PEMS[2], "line 13: .* begins before"),
        (PEMS[0].replace("PUBLIC", "RSA PUBLIC"), "line 1: BEGIN RSA PUBLIC KEY"),
        (PEMS[0].replace("M", "!"), "line 1: the public key is not a readable PEM"),
        ("é", "ASCII"),
        ("#" * (MAX_BYTES + 1), "larger than"),
        (PEMS[0] + "d/t/0/0 1" + "0" * 19 + "\n" + PEMS[1], "line 4: neither"),
    ],
)  # fmt: skip
def test_each_mistake_has_one_clear_error(content: str, message: str) -> None:
    with pytest.raises(KeyFormatError, match=message):
        read_key_list(content.encode())


def test_a_block_of_an_event_has_one_form_only() -> None:
    block = LATER + PEMS[1]
    assert read_block(block) == LogKey(KEYS[1], FIRST)
    backward = "".join(reversed(LATER.splitlines(keepends=True))) + PEMS[1]
    for other in ("", PEMS[0] + block, "# x\n" + block, block + "\n", backward):
        with pytest.raises(KeyFormatError):
            read_block(other)


def test_a_sealer_picks_its_signer_by_origin_and_size() -> None:
    keys = LogKeys((LogKey(KEYS[0]), LogKey(KEYS[1], FIRST)))
    both = LogSigners(keys, dict(zip(KEYS[:2], SIGNERS[:2], strict=True)))
    assert both.at("d/anchors/0/0", 2) is SIGNERS[0]
    assert both.at("d/anchors/0/0", 3) is SIGNERS[1]
    assert LogSigners(keys, {KEYS[1]: SIGNERS[1]}).at("d/anchors/0/0", 2) is None
    assert LogSigners.single(SIGNERS[0]).at("d/anchors/0/0", 9) is SIGNERS[0]
