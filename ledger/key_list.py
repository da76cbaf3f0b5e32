"""The public keys of a deployment's logs as one file (docs/ledger.md, "Log keys").

The first block is the key with which the deployment began. Before each later block stand the logs that existed when it
became valid, each with the first checkpoint size that it signs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .entry import split_origin
from .keys import KeyFormatError, LogKey, LogKeys, public_pem, read_public_pem

MAX_BYTES = 4 << 20
"""Largest file."""
MAX_KEYS = 1000
MAX_LOGS = 100_000
"""Most logs per key."""
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
_FIRST_SIZE = re.compile(r"(\S{1,255}) (0|[1-9][0-9]{0,18})", re.ASCII)


def write_block(key: LogKey) -> str:
    """Return one key of the list: its first sizes, sorted by the bytes of the origins, and the key as PEM."""
    sizes = sorted(key.first_sizes.items(), key=lambda item: item[0].encode())
    return "".join(f"{origin} {size}\n" for origin, size in sizes) + public_pem(key.public_key).decode()


def write_key_list(keys: LogKeys) -> bytes:
    """Return the content of the file."""
    return "".join(map(write_block, keys.keys)).encode()


def read_key_list(content: bytes) -> LogKeys:
    """Read the file. Empty lines, spaces at the end of a line and lines that begin with ``#`` are ignored.

    Raises:
        KeyFormatError: it is not such a list. The message names the line.
    """
    keys: list[LogKey] = []
    for number, key in _read_blocks(content):
        if keys:
            _check_next(keys, key, number)
        elif key.first_sizes:
            raise KeyFormatError(
                f"line {number}: first sizes stand before the first key, which signs from the beginning"
            )
        keys.append(key)
        if len(keys) > MAX_KEYS:
            raise KeyFormatError(f"line {number}: more than {MAX_KEYS} keys")
    if not keys:
        raise KeyFormatError("the file contains no public key in PEM")
    return LogKeys(tuple(keys))


def read_block(text: str) -> LogKey:
    """Read one key of the list, as the event ``key.changed`` contains it.

    Raises:
        KeyFormatError: it is not exactly one key as :func:`write_block` writes it.
    """
    blocks = [key for _, key in _read_blocks(text.encode())]
    if len(blocks) != 1 or write_block(blocks[0]) != text:
        raise KeyFormatError("it is not one key of a key list")
    return blocks[0]


def _read_blocks(content: bytes) -> Iterator[tuple[int, LogKey]]:
    """Yield each key with the number of the line at which its PEM begins."""
    if len(content) > MAX_BYTES:
        raise KeyFormatError(f"the file is larger than {MAX_BYTES >> 20} MiB: it is no list of public keys")
    try:
        lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise KeyFormatError("the file is not text in ASCII: it is no list of public keys") from None
    sizes: dict[str, int] = {}
    numbered = iter(enumerate(map(str.rstrip, lines), 1))
    for number, line in numbered:
        if line == _BEGIN:
            yield number, _key(_pem(number, numbered), sizes, number)
            sizes = {}
        elif line.startswith("-----BEGIN "):
            raise KeyFormatError(f"line {number}: {line.strip('-')} is where a public key is expected")
        elif line and not line.startswith("#"):
            origin, size = _first_size(line, number)
            if origin in sizes:
                raise KeyFormatError(f"line {number}: {origin} is listed twice for one key")
            sizes[origin] = size
            if len(sizes) > MAX_LOGS:
                raise KeyFormatError(f"line {number}: more than {MAX_LOGS} logs for one key")
    if sizes:
        raise KeyFormatError(f"line {len(lines)}: first sizes at the end of the file, without a key after them")


def _pem(begin: int, numbered: Iterable[tuple[int, str]]) -> bytes:
    block = [_BEGIN]
    for _, line in numbered:
        block.append(line)
        if line == _END:
            return "\n".join([*block, ""]).encode()
    raise KeyFormatError(f"line {begin}: the public key has no {_END.strip('-')}")


def _key(pem: bytes, sizes: dict[str, int], number: int) -> LogKey:
    try:
        return LogKey(read_public_pem(pem), sizes)
    except ValueError as error:
        raise KeyFormatError(f"line {number}: {error}") from error


def _first_size(line: str, number: int) -> tuple[str, int]:
    found = _FIRST_SIZE.fullmatch(line)
    try:
        if found is None:
            raise ValueError("neither a PEM block nor an origin and a size")
        origin, size = found[1], int(found[2])
        split_origin(origin)
    except ValueError as error:
        raise KeyFormatError(f"line {number}: {error}") from error
    return origin, size


def _check_next(keys: list[LogKey], key: LogKey, number: int) -> None:
    """Check that a key begins nowhere before the key before it, so that exactly one key signs each checkpoint."""
    if any(key.public_key == other.public_key for other in keys):
        raise KeyFormatError(f"line {number}: this key is in the list already")
    if not key.first_sizes:
        raise KeyFormatError(f"line {number}: no first sizes stand before this key")
    begins = {log: (epoch, size) for log, epoch, size in _places(key)}
    for log, epoch, size in _places(keys[-1]):
        if log not in begins:
            raise KeyFormatError(f"line {number}: {log} is missing before this key; the key before it lists it")
        if begins[log] < (epoch, size):
            raise KeyFormatError(f"line {number}: in {log}, this key begins before the one that it follows")


def _places(key: LogKey) -> Iterator[tuple[str, int, int]]:
    for origin, size in key.first_sizes.items():
        log, epoch = split_origin(origin)
        yield log, epoch, size
