"""The tree compared with the recursion in RFC 6962 and with pymerkle, an independent implementation."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from grantledger.ledger.entry import leaf_hash
from grantledger.ledger.merkle import EMPTY_ROOT, Frontier, node_hash, root_of, subtrees

LEAVES = [hashlib.sha256(b"\0" + bytes([n % 256, n // 256])).digest() for n in range(301)]


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, literally: split at the largest power of two smaller than n."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


@pytest.fixture(scope="module")
def roots() -> list[bytes]:
    return [naive_root(LEAVES[:size]) for size in range(len(LEAVES))]


def test_one_leaf_after_another_gives_the_root_of_rfc_6962(roots: list[bytes]) -> None:
    frontier = Frontier()
    for size, root in enumerate(roots):
        assert (frontier.size, frontier.root()) == (size, root)
        frontier.extend(b"".join(LEAVES[size : size + 1]))


def test_all_leaves_at_once_give_the_root_of_rfc_6962(roots: list[bytes]) -> None:
    for size, root in enumerate(roots):
        assert root_of(LEAVES[:size]) == root


def test_the_roots_are_those_of_pymerkle() -> None:
    """pymerkle hashes the data itself: SHA-256 with the prefixes of RFC 6962 is its default."""
    data = [bytes([n % 256, n // 256]) for n in range(300)]
    tree = InmemoryTree(algorithm="sha256")
    frontier = Frontier()
    for entry in data:
        tree.append_entry(entry)
        frontier.extend(leaf_hash(entry))
        assert frontier.root() == tree.get_state()


def test_known_roots() -> None:
    """From the tests of certificate-transparency-go, merkle/rfc6962: eight leaves of known data."""
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [leaf_hash(bytes.fromhex(text)) for text in data]
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert root_of(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert root_of(leaves[:2]).hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert root_of(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(st.lists(st.integers(0, 40), max_size=12))
def test_any_split_into_batches_gives_the_same_tree(sizes: list[int]) -> None:
    frontier = Frontier()
    at = 0
    for size in sizes:
        part = LEAVES[at : at + size]
        frontier.extend(b"".join(part))
        at += len(part)
    assert frontier.size == at
    assert frontier.root() == root_of(LEAVES[:at])
    assert frontier.pack() == _whole(at).pack()


def _whole(size: int) -> Frontier:
    frontier = Frontier()
    frontier.extend(b"".join(LEAVES[:size]))
    return frontier


@given(st.integers(0, 300), st.integers(0, 60))
def test_a_packed_frontier_goes_on_as_the_one_it_was_made_from(size: int, more: int) -> None:
    frontier = _whole(size)
    packed = frontier.pack()
    assert len(packed) == 32 * size.bit_count()
    again = Frontier.unpack(size, packed)
    again.extend(b"".join(LEAVES[:more]))
    frontier.extend(b"".join(LEAVES[:more]))
    assert (again.size, again.root(), again.pack()) == (frontier.size, frontier.root(), frontier.pack())


@given(st.integers(0, 300))
def test_nodes_are_the_complete_subtrees_from_left_to_right(size: int) -> None:
    expected, at = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            expected.append(naive_root(LEAVES[at : at + (1 << level)]))
            at += 1 << level
    assert _whole(size).nodes() == expected
    assert _whole(size).root() == naive_root(LEAVES[:size])


@pytest.mark.parametrize("size", [-1, 0, 1, 5, 6])
def test_a_frontier_of_the_wrong_length_is_refused(size: int) -> None:
    for length in {0, 31, 32, 33, 64, 96} - {32 * size.bit_count() if size >= 0 else -1}:
        with pytest.raises(ValueError, match="a frontier of size"):
            Frontier.unpack(size, bytes(length))


def test_a_copy_goes_its_own_way() -> None:
    frontier = _whole(5)
    twin = frontier.copy()
    twin.extend(b"".join(LEAVES[5:9]))
    assert (frontier.size, frontier.root()) == (5, root_of(LEAVES[:5]))
    assert twin.root() == root_of(LEAVES[:9])


@given(st.integers(0, 200), st.integers(0, 100))
def test_subtrees_are_complete_and_make_the_same_tree(first: int, count: int) -> None:
    frontier, at = _whole(first), first
    for level, node in subtrees(first, b"".join(LEAVES[first : first + count])):
        assert at % (1 << level) == 0
        assert node == naive_root(LEAVES[at : at + (1 << level)])
        frontier.add(level, node)
        at += 1 << level
    assert at == first + count == frontier.size
    assert frontier.pack() == _whole(at).pack()


def test_left_and_right_are_not_the_same() -> None:
    assert node_hash(LEAVES[0], LEAVES[1]) != node_hash(LEAVES[1], LEAVES[0])
