"""``grantledger init``."""

from __future__ import annotations

from ..runtime.initialise import initialise
from ..runtime.keys import load_public_key
from ..runtime.settings import Settings
from .keys import print_verifier_keys
from .output import Output
from .person import PersonOption, person


def command(settings: Settings, output: Output, name: PersonOption = "") -> None:
    """Create a new ledger on your own Kafka cluster: its topics and its key pair. Run it once per deployment.

    It fails if a ledger or a key exists. It prints the verifier keys: hand them to your auditors over a channel that
    the operators of the ledger do not control. Back up the private key: the ledger cannot continue without it.

    Exit codes: 0 created; 1 Kafka does not answer; 2 a ledger or a key exists, or a setting is wrong.
    """
    settings.cluster().check_answers()
    created = initialise(settings, person(name))
    print_verifier_keys(settings, output, load_public_key(settings))
    output.note(f"created {created} topics and the private key {settings.private_key_path}: back it up now")
    output.note("next: grantledger run seal, and the other processes (docs/operations.md)")
