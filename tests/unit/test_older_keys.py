"""What ``doctor`` says about older private keys, and about a change of the key that was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grantledger.ledger.key_list import write_key_list
from grantledger.ledger.keys import LocalSigner, LogKey, LogKeys, public_pem
from grantledger.runtime.doctor import keys, older_keys
from grantledger.runtime.doctor.diagnosis import Diagnosis, State
from grantledger.runtime.keys import next_key_file
from grantledger.runtime.settings import Settings

BUSY, IDLE = "d/access.lifecycle/0/0", "d/access.queries/0/0"
OLD, NEW = LocalSigner.generate(), LocalSigner.generate()
KEYS = LogKeys((LogKey(OLD.public_key), LogKey(NEW.public_key, {BUSY: 8, IDLE: 1})))
FILE = {1: "log.1.pem"}


def only(found: Sequence[Diagnosis], state: State, *words: str) -> None:
    assert [one.state for one in found] == [state], found
    assert all(word in f"{found[0].text} → {found[0].action}" for word in words), found


def test_an_older_key_is_needed_until_every_log_has_a_newer_entry() -> None:
    only(older_keys.check(KEYS, FILE, {}, {BUSY: 9, IDLE: 0}), State.ok, "log.1.pem is still needed", IDLE)
    only(older_keys.check(KEYS, FILE, {}, {BUSY: 9, IDLE: 1}), State.ok, "delete it")
    lost = older_keys.check(KEYS, {}, FILE, {BUSY: 9, IDLE: 0})
    only(lost, State.warning, "there is no log.1.pem", IDLE, "restore it")
    assert older_keys.check(KEYS, {}, FILE, {BUSY: 9, IDLE: 1}) == []


def test_a_change_that_was_interrupted_must_be_completed(tmp_path: Path) -> None:
    here = Settings(data_dir=tmp_path)
    here.private_key_path.parent.mkdir()
    for path, signer in ((here.private_key_path, OLD), (next_key_file(here).path, NEW)):
        path.write_bytes(signer.to_pem(None))
        path.chmod(0o600)
    here.public_key_path.write_bytes(public_pem(OLD.public_key))
    only(keys.check(keys.read_keys(here), needs_private=True), State.warning, "log.next.pem", "keys rotate` again")
    next_key_file(here).path.unlink()
    only(keys.check(keys.read_keys(here), needs_private=True), State.ok)
    here.public_key_path.write_bytes(write_key_list(KEYS))
    only(keys.check(keys.read_keys(here), needs_private=True), State.problem, "is not the public half")


def test_what_the_newest_batches_say_about_the_list() -> None:
    found = keys.check_signature(None, has_batches=True, public_path=Path("log.pub"), later="signed by another key")
    only(found, State.problem, "signed by another key", "copy the present log.pub")
