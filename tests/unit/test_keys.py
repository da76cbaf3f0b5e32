"""Keys: in PEM and on disk, created once, readable by their owner only, never overwritten."""

from __future__ import annotations

import os
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from grantledger.ledger.batch import Head
from grantledger.ledger.entry import Genesis
from grantledger.ledger.key_list import write_key_list
from grantledger.ledger.keys import KeyFormatError, LocalSigner, LogKey, LogKeys, public_pem, read_public_pem
from grantledger.processors.partition_buffer import PartitionBuffer, SignerMissingError
from grantledger.runtime import keys
from grantledger.runtime.keys import (
    KeyUnavailableError,
    create_key,
    load_log_keys,
    load_signer,
    load_signers,
    older_key_file,
    passphrase,
)
from grantledger.runtime.settings import Settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GRANTLEDGER_")]:
        monkeypatch.delenv(name)


def settings(folder: Path, **given: object) -> Settings:
    return Settings(data_dir=folder, **given)


def test_a_key_comes_back_from_its_pem() -> None:
    signer = LocalSigner.generate()
    for phrase in (None, b"correct horse"):
        again = LocalSigner.from_pem(signer.to_pem(phrase), phrase)
        assert again.public_key == signer.public_key
        assert again.sign(b"x") == signer.sign(b"x")
    assert read_public_pem(public_pem(signer.public_key)) == signer.public_key


def _p256() -> tuple[bytes, bytes]:
    key = generate_private_key(SECP256R1())
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


@pytest.mark.parametrize(
    ("make", "phrase", "what"),
    [
        (lambda signer: signer.to_pem(b"right"), None, "is encrypted and no passphrase is given"),
        (lambda signer: signer.to_pem(b"right"), b"wrong", "or the passphrase is wrong"),
        (lambda signer: signer.to_pem(None), b"right", "is not encrypted, a passphrase is given"),
        (lambda signer: b"nonsense", None, "not a readable PKCS#8 PEM"),
        (lambda signer: public_pem(signer.public_key), None, "not a readable PKCS#8 PEM"),
        (lambda signer: _p256()[0], None, "not an Ed25519 key"),
    ],
)
def test_private_keys_that_cannot_be_used(make, phrase: bytes | None, what: str) -> None:
    with pytest.raises(KeyFormatError, match=what):
        LocalSigner.from_pem(make(LocalSigner.generate()), phrase)


def test_public_keys_that_cannot_be_used() -> None:
    with pytest.raises(KeyFormatError, match="not a readable PEM"):
        read_public_pem(b"nonsense")
    with pytest.raises(KeyFormatError, match="not an Ed25519 key"):
        read_public_pem(_p256()[1])


def test_messages_never_contain_key_material() -> None:
    pem = LocalSigner.generate().to_pem(None).decode().splitlines()[1]
    with pytest.raises(KeyFormatError) as caught:
        LocalSigner.from_pem(
            f"-----BEGIN PRIVATE KEY-----\n{pem[:-3]}\n-----END PRIVATE KEY-----\n".encode(), b"secret"
        )
    assert pem[:10] not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_new_key_is_for_its_owner_only_and_both_halves_fit(tmp_path: Path) -> None:
    here = settings(tmp_path / "data")
    old = os.umask(0)
    try:
        signer = create_key(here)
    finally:
        os.umask(old)
    assert stat.S_IMODE(here.private_key_path.stat().st_mode) == 0o600
    assert load_signer(here).public_key == load_log_keys(here).newest == signer.public_key
    assert sorted(path.name for path in here.private_key_path.parent.iterdir()) == ["log.pem", "log.pub"]


def test_openssl_reads_our_keys(tmp_path: Path) -> None:
    here = settings(tmp_path)
    signer = create_key(here)
    printed = subprocess.run(
        ["openssl", "pkey", "-in", str(here.private_key_path), "-pubout"], capture_output=True, check=True
    ).stdout
    assert read_public_pem(printed) == signer.public_key


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    here = settings(tmp_path)
    create_key(here)
    before = [here.private_key_path.read_bytes(), here.public_key_path.read_bytes()]
    with pytest.raises(KeyUnavailableError, match=r"log\.pem \(key_file\) exists already"):
        create_key(here)
    assert [here.private_key_path.read_bytes(), here.public_key_path.read_bytes()] == before


def test_the_public_half_of_a_lost_key_is_never_overwritten(tmp_path: Path) -> None:
    """It is what an old ledger is verified with."""
    here = settings(tmp_path)
    create_key(here)
    old = here.public_key_path.read_bytes()
    here.private_key_path.unlink()
    with pytest.raises(KeyUnavailableError, match="exists without its private key"):
        create_key(here)
    assert here.public_key_path.read_bytes() == old
    assert not here.private_key_path.exists()


def test_a_key_made_by_another_process_in_the_meantime_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = settings(tmp_path)
    link = os.link

    def late(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"of somebody else")
        link(source, target)

    monkeypatch.setattr(keys.os, "link", late)
    with pytest.raises(KeyUnavailableError, match="exists already"):
        create_key(here)
    assert here.private_key_path.read_bytes() == b"of somebody else"
    assert [path.name for path in here.private_key_path.parent.iterdir()] == ["log.pem"]


def test_a_passphrase_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    here = settings(tmp_path, key_passphrase_file=tmp_path / "missing")
    with pytest.raises(KeyUnavailableError, match=r"missing \(key_passphrase_file\)"):
        create_key(here)
    assert not here.private_key_path.exists()
    with pytest.raises(KeyUnavailableError, match="key_passphrase"):
        create_key(settings(tmp_path, key_passphrase=""))
    create_key(settings(tmp_path))


def test_a_public_half_that_is_missing_is_written_again(tmp_path: Path) -> None:
    """A stop between the two halves of the first start."""
    here = settings(tmp_path)
    signer = create_key(here)
    here.public_key_path.unlink()
    assert load_signer(here).public_key == load_log_keys(here).newest == signer.public_key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    here = settings(tmp_path)
    create_key(here)
    here.private_key_path.chmod(mode)
    with pytest.raises(KeyUnavailableError, match=r"is open to others .*chmod 600"):
        load_signer(here)


def test_a_missing_key_is_never_replaced_for_an_existing_ledger(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailableError, match="restore it from your backup"):
        load_signer(settings(tmp_path))
    with pytest.raises(KeyUnavailableError, match=r"the public key .* does not exist"):
        load_log_keys(settings(tmp_path))


def test_the_passphrase_comes_from_its_setting_or_its_file(tmp_path: Path) -> None:
    file = tmp_path / "phrase"
    file.write_bytes(b"correct horse\r\nsecond line\n")
    assert passphrase(settings(tmp_path)) is None
    assert passphrase(settings(tmp_path, key_passphrase_file=file)) == b"correct horse"
    assert passphrase(settings(tmp_path, key_passphrase="p", key_passphrase_file=file)) == b"p"
    here = settings(tmp_path, key_passphrase_file=file)
    signer = create_key(here)
    assert b"ENCRYPTED" in here.private_key_path.read_bytes()
    assert load_signer(settings(tmp_path, key_passphrase="correct horse")).public_key == signer.public_key
    with pytest.raises(KeyUnavailableError, match="or the passphrase is wrong"):
        load_signer(settings(tmp_path, key_passphrase="wrong"))
    with pytest.raises(KeyUnavailableError, match="no passphrase is given"):
        load_signer(settings(tmp_path))
    file.write_text("\n")
    with pytest.raises(KeyUnavailableError, match="its first line is empty"):
        load_signer(here)


def test_an_auditor_names_a_public_key_of_their_own(tmp_path: Path) -> None:
    create_key(settings(tmp_path))
    other = LocalSigner.generate()
    given = tmp_path / "given.pub"
    given.write_bytes(public_pem(other.public_key))
    assert load_log_keys(settings(tmp_path), given).newest == other.public_key


LOG = "test.example/access.queries/0/0"


def changed_key(here: Settings) -> tuple[LocalSigner, LocalSigner]:
    """Replace the key on disk, and return the old and the new one."""
    old = create_key(here)
    new = LocalSigner.generate()
    older_key_file(here, 1).write(old)
    here.private_key_path.write_bytes(new.to_pem(None))
    here.public_key_path.write_bytes(
        write_key_list(LogKeys((LogKey(old.public_key), LogKey(new.public_key, {LOG: 8}))))
    )
    return old, new


def test_the_older_private_key_restates_a_log_without_a_newer_entry(tmp_path: Path) -> None:
    here = settings(tmp_path)
    old, new = changed_key(here)
    signers = load_signers(here)
    assert signers.newest.public_key == new.public_key == load_log_keys(here).newest
    assert [getattr(signers.at(LOG, size), "public_key", None) for size in (7, 8)] == [old.public_key, new.public_key]
    assert older_key_file(here, 1).path.name == "log.1.pem"
    older_key_file(here, 1).path.unlink()
    assert load_signers(here).at(LOG, 7) is None


def test_keys_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    here = settings(tmp_path)
    changed_key(here)
    older = older_key_file(here, 1).path
    before = older.read_bytes()
    older.write_bytes(LocalSigner.generate().to_pem(None))
    with pytest.raises(KeyUnavailableError, match=r"log\.1\.pem is not the private half of key 1 in .*log\.pub"):
        load_signers(here)
    here.private_key_path.write_bytes(before)
    with pytest.raises(KeyUnavailableError, match=r"log\.pub is not the public half of .*log\.pem"):
        load_signers(here)


def test_a_head_is_restated_only_with_the_key_that_signed_it(tmp_path: Path) -> None:
    here = settings(tmp_path)
    old, _ = changed_key(here)
    signers, head = load_signers(here), Head.at_genesis(Genesis(LOG, bytes(16), 0))
    buffer = PartitionBuffer(head, stated_at=0.0, linger=1.0)
    assert not buffer.must_state_head(5.0, 10.0, signers) and buffer.must_state_head(10.0, 10.0, signers)
    buffer.seal(signers, datetime.now(UTC))
    [(batch, _)] = buffer.batches
    assert batch.verified_head(old.public_key).size == 0
    older_key_file(here, 1).path.unlink()
    signers = load_signers(here)
    assert not buffer.must_state_head(10.0, 10.0, signers)
    with pytest.raises(SignerMissingError, match="with 0 entries is not here"):
        buffer.seal(signers, datetime.now(UTC))
