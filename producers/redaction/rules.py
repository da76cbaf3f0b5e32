"""The built-in rules. Each finds the places of one kind of secret, and never needs more than linear time.

Senders choose the texts, so each repetition is possessive, bounded, or begins at few places only.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from . import hints, numbers, sql
from .hints import Hint, always, both, either, has, matches
from .numbers import Span

Find = Callable[[str], Iterator[Span]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        name: stands in the mark.
        about: what it finds, for people.
        find: yields the places of what is to be removed, in order.
        needles: a text without any of these, in lower case, is not read; empty: every text is.
        hint: whether it may find anything in a record.
        strict: it is applied at the level strict only.
        personal: it finds data of persons, so the record's own people, resources and ids are left alone.
        sql: it is applied to statements only.
    """

    name: str
    about: str
    find: Find
    needles: tuple[str, ...] = ()
    hint: Hint = always
    strict: bool = False
    personal: bool = False
    sql: bool = False


_PASSWORDS = r"(?:password|passwd|passphrase|passcode|(?:(?<=[_.-])|db|user)pass|(?<![\w.-])pass(?=[=:][^\s\"])|pwd)\d?"
_SECRETS = (
    r"(?:(?<!next)(?<!page)(?<!next[_-])(?<!page[_-])token|secret|secret[_-]?(?:access[_-]?)?key"
    r"|secret[_-]?(?:string|value)|api[_-]?key|private[_-]?key|encryption[_-]?key|account[_-]?key|shared[_-]?access[_-]?key"
    r"|x-amz-signature|x-amz-security-token|(?<![\w.-])sig)"
)
_VALUE = (
    r"(?:(?P<open>\\{1,7}[\"'])(?P<escaped>[^\n]*?)(?P=open)"
    r"|(?P<quoted>'[^']*+'|\"[^\"]*+\")(?=[\s,;&|)}\]]|$)"
    r"|(?P<plain>(?:'[^']*+'|\"[^\"]*+\"|\\.|[^\s&;|\\'\"])++(?:['\"][^\n]*+)?+)"
    r"|(?P<rest>\\{0,7}[\"'][^\n]*+))"
)
"""A word as in a shell or in JSON, which may be in quotes. A quote that never ends takes the rest of the line."""
_VALUES = ("escaped", "quoted", "plain", "rest")


def _named(name: str) -> Find:
    """Return what finds the value of a variable, parameter or member with such a name, or of a long option."""
    assigned = re.compile(
        rf"(?<![\w.-])(?P<name>[\w.-]{{0,100}}?{name})(?P<sign>\\{{0,7}}[\"']?\s{{0,4}}[=:]\s{{0,4}})"
        rf"(?:(?:bearer|basic|token)\s{{1,4}})?{_VALUE}"
        rf"|(?<!\S)(?P<option>--?[\w.-]{{0,100}}?{name})[ \t]{{1,4}}(?!-){_VALUE.replace('?P<', '?P<o_').replace('?P=', '?P=o_')}",  # noqa: E501
        re.IGNORECASE,
    )

    def find(text: str) -> Iterator[Span]:
        for found in assigned.finditer(text):
            prefix = "" if found["name"] is not None else "o_"
            begin, end = next(found.span(prefix + one) for one in _VALUES if found[prefix + one] is not None)
            if text[begin] == "/" and (found["name"] or "").lower() in ("pwd", "oldpwd"):
                continue  # the folder of a shell
            if found["sign"] == ":" and text[found.start() - 1 : found.start()] == ":":
                continue  # a part of a name, such as an ARN
            quote = text[found.start() - 1 : found.start()]
            if quote in ("'", '"') and quote not in (found["sign"] or ""):
                # The name and the value are in one pair of quotes.
                closing = text.find(quote, begin + 1, end)
                end = closing if closing > 0 else end
            yield _without_quotes(text, begin, end)

    return find


def _without_quotes(text: str, begin: int, end: int) -> Span:
    """Return the place of a word without the quotes around it."""
    quote = text[begin]
    if quote in "'\"":
        if end - begin > 1 and text[end - 1] == quote and text.find(quote, begin + 1) == end - 1:
            return begin + 1, end - 1
        if text.find(quote, begin + 1, end) < 0:  # it never ends
            return begin + 1, end
    return begin, end


def _pattern(pattern: str, flags: int = re.IGNORECASE, check: Callable[[str], bool] | None = None) -> Find:
    """Return what finds the group ``it`` of a pattern."""
    compiled = re.compile(pattern, flags)

    def find(text: str) -> Iterator[Span]:
        for found in compiled.finditer(text):
            if check is None or check(found["it"]):
                yield found.span("it")

    return find


def _is_basic(text: str) -> bool:
    """Return whether a text is a user and a password in Base64."""
    try:
        return b":" in base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False


def _authorization(text: str) -> Iterator[Span]:
    for found in _HEADER.finditer(text):
        yield found.span("it")
    for found in _BEARER.finditer(text):
        if len(found["it"]) >= 20 or any(map(str.isdigit, found["it"])):
            yield found.span("it")
    for found in _BASIC.finditer(text):
        if _is_basic(found["it"]):
            yield found.span("it")


_HEADER = re.compile(
    r"\b(?:proxy-)?(?:authorization|(?:set-)?cookie2?)\\{0,7}[\"']?\s{0,4}[:=]\s{0,4}\\{0,7}[\"'\[]{0,2}"
    r"(?:(?:bearer|basic|token|digest|negotiate|apikey|aws4-hmac-sha256)\s{1,4})?(?P<it>[^\s\"'\\][^\n\"'\\]*+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\bbearer\s{1,4}(?P<it>[A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE)
_BASIC = re.compile(r"\bbasic\s{1,4}(?P<it>[A-Za-z0-9+/]{6,}={0,2})", re.IGNORECASE)
_PROGRAMS = {
    "mysql": r"-p", "mysqldump": r"-p", "mysqladmin": r"-p", "mariadb": r"-p", "mariadb-dump": r"-p",
    "sshpass": r"-p[ \t]*", "mongo": r"-p[ \t]*", "mongosh": r"-p[ \t]*", "redis-cli": r"-a[ \t]*",
    "ldapsearch": r"-w[ \t]*", "ldapmodify": r"-w[ \t]*", "sqlcmd": r"-P[ \t]*", "psexec": r"-p[ \t]*",
    "docker login": r"-p[ \t]*", "podman login": r"-p[ \t]*", "az login": r"-p[ \t]*",
    "aws configure set": r"aws_(?:secret_access_key|session_token)[ \t]+",
}  # fmt: skip
"""Programs that take a password, and what comes before it."""
_WITH_USER = ("curl", "wget")
"""Programs whose option for a user is followed by the name and the password."""
_USER = re.compile(
    r"(?<!\S)(?:-u|-U|--user|--proxy-user|--http-user)[ =\t]*"
    r"(?:'[^\s:']{0,256}:(?P<single>[^']*+)|\"[^\s:\"]{0,256}:(?P<double>[^\"]*+)|[^\s:'\"]{0,256}:(?P<it>[^\s'\"]++))"
)
_PROGRAM = re.compile(
    rf"(?<![\w-])(?:{'|'.join(map(re.escape, sorted((*_PROGRAMS, *_WITH_USER), key=len, reverse=True)))})(?![\w-])"
)
_SHORT = {
    name: re.compile(rf"(?<!\S){option}(?!-[\w-])(?P<it>'[^']*+'|\"[^\"]*+\"|[^\s;&|'\"]++)")
    for name, option in _PROGRAMS.items()
} | dict.fromkeys(_WITH_USER, _USER)
_END = re.compile(r"[;|\n]|&&")


def _short_options(text: str) -> Iterator[Span]:
    place = 0
    while (program := _PROGRAM.search(text, place)) is not None:
        after = _END.search(text, program.end())
        place = after.end() if after is not None else len(text)
        for found in _SHORT[program[0]].finditer(text, program.end(), place):
            yield _without_quotes(text, *found.span(found.lastgroup or 0))


_NAMED = {
    "password": ("password", "passwd", "passphrase", "passcode", "pass", "pwd"),
    "secret": ("token", "secret", "api_key", "apikey", "api-key", "privatekey", "private_key", "private-key",
               "encryptionkey", "encryption_key", "encryption-key", "accountkey", "account_key", "account-key",
               "access_key", "accesskey", "access-key", "x-amz-s", "sig="),
}  # fmt: skip
_CALLED = ("mysql", "mariadb", "sshpass", "mongo", "redis-cli", "ldap", "sqlcmd", "psexec", "curl", "wget", "login",
           "configure set")  # fmt: skip
_KNOWN = (
    r"(?P<it>(?<!\w)(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|xapp-[A-Za-z0-9-]{10,}|hv[sbr]\.[\w-]{20,}|(?:sk|rk)_live_[A-Za-z0-9]{16,}"
    r"|AIza[\w-]{35}|ya29\.[\w-]{20,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|SG\.[\w-]{16,64}\.[\w-]{16,}"
    r"|dop_v1_[0-9a-f]{64}|sk-[A-Za-z0-9][\w-]{19,}|AGE-SECRET-KEY-1[A-Z0-9]{58})"
    r"|(?<=hooks\.slack\.com/services/)[\w/]{20,})"
)

_TOKENS = (
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xox",
    "xapp-",
    "hvs.",
    "hvb.",
    "hvr.",
    "k_live_",
    "aiza",
    "ya29.",
    "npm_",
    "pypi-",
    "sg.",
    "dop_v1_",
    "sk-",
    "age-secret",
    "hooks.slack",
)
_KEYS = (
    r"(?:(?<=api.key)|(?<=apikey)|(?<=te.key)|(?<=tekey)|(?<=on.key)|(?<=onkey)|(?<=et.key)|(?<=etkey)|(?<=nt.key)"
    r"|(?<=ntkey)|(?<=ss.key)|(?<=sskey))"
)
_SHAPES = (
    r"_(?:(?<=gh[pousr]_)|(?<=hub_pat_)|(?<=k_live_)|(?<=npm_)|(?<=dop_v1_))\w{10}",
    r"-(?:(?<=glpat-)|(?<=xox[abeoprs]-)|(?<=xapp-)|(?<=pypi-)|(?<=sk-)|(?<=SECRET-KEY-))[\w-]{10}",
    r"\.(?:(?<=hv[sbr]\.)|(?<=ya29\.)|(?<=SG\.))[\w-]{10}",
    r"AIza[\w-]{35}",
    r"hooks\.slack",
)
"""How the tokens look. Each begins with a sign that is rare, so the search is fast."""

RULES: tuple[Rule, ...] = (
    Rule(
        "private_key", "private keys in PEM form",
        _pattern(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?P<it>.*?)(?=-----END|\Z)", re.DOTALL),
        ("private key",), matches("private key(?:-----| block)"),
    ),
    Rule(
        "authorization", "headers Authorization and Cookie; `Bearer …`, `Basic …`", _authorization,
        ("authorization", "cookie", "bearer", "basic"),
        matches(r"authorization[\"'\\]{0,8}\s{0,4}[:=]", r"cookie2?[\"'\\]{0,8}\s{0,4}[:=]",
                r"bearer\s{1,4}[a-z0-9._~+/=-]{8}", r"basic\s{1,4}[a-z0-9+/]{6}"),
    ),
    Rule(
        "sql_password", "passwords of accounts in SQL: `PASSWORD '…'`, `IDENTIFIED BY '…'`", sql.passwords,
        ("password", "identified"),
        matches(r"password(?![\"'\\]{0,8}\s{0,4}:)[^\w,}\]]", r"identified[\s\\/-]"),
    ),
    Rule(
        "password", "`PASSWORD=…`, `password: …`, `--password …`, and members with such names", _named(_PASSWORDS),
        _NAMED["password"],
        either(matches(rf"pass(?:word|wd|phrase|code)?{hints.NAMED}", rf"pwd{hints.NAMED}"),
               both(hints.words, matches(rf"pass(?:word|wd|phrase|code)?{hints.WORD}"))),
    ),
    Rule(
        "secret", "the same with `token`, `secret`, `api_key`, `private_key`, `secret_access_key` …", _named(_SECRETS),
        _NAMED["secret"],
        either(matches(rf"token{hints.NAMED}",
                       rf"secret(?:(?<!:secret)|(?=[^:]))(?:[_-]?(?:string|value))?{hints.NAMED}",
                       rf"key{_KEYS}{hints.NAMED}", r"aws_s(?:ecret_access_key|ession_token)", "sig=", "x-amz-s"),
               both(hints.words, matches(rf"(?:token|secret|key){hints.WORD}"))),
    ),
    Rule(
        "password_option", "short options: `mysql -p…`, `redis-cli -a …`, `curl -u user:…`", _short_options,
        _CALLED, either(both(hints.option, has(*_CALLED)), has("configure set")),
    ),
    Rule(
        "url_password", "passwords in URLs: `https://user:…@host`",
        _pattern(r"://[^/\s:@'\"]{0,256}:(?P<it>[^\s/'\"]{1,512})(?=@)"),
        ("://",), matches(r"://[^/\s'\"]{0,770}@"),
    ),
    Rule(
        "json_web_token", "JSON Web Tokens",
        _pattern(r"(?<![\w-])(?P<it>eyJ[\w-]{8,}+\.[\w-]{8,}+(?:\.[\w-]*+){1,3}+)", 0),
        ("eyj",), matches(r"eyJ[\w-]{8}", cased=True),
    ),
    Rule(
        "known_token", "tokens of GitHub, GitLab, Slack, Vault, Stripe, Google, npm, PyPI, SendGrid and others",
        _pattern(_KNOWN, 0), tuple(map(str.lower, _TOKENS)), matches(*_SHAPES, cased=True),
    ),
    Rule(
        "aws_secret_key", "secret keys of AWS after their key ids",
        _pattern(r"A[KS]IA[A-Z0-9]{16}[\"']?[\s:,;]{1,4}[\"']?(?P<it>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])", 0),
        ("akia", "asia"),
        matches(r"A[KS]IA[A-Z0-9]{16}[\"'\\]{0,8}[\s:,;\\n]{1,8}[\"'\\]{0,8}[A-Za-z0-9/+]{40}", cased=True),
    ),
    Rule("card_number", "numbers of payment cards, by issuer and check digit", numbers.cards, (), hints.card,
         personal=True),
    Rule(
        "email_address", "e-mail addresses",
        _pattern(r"(?<![\w.%+-])(?P<it>[\w.%+-]{1,128}+@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![\w-])",
                 re.ASCII, lambda text: not text.startswith("git@")),
        ("@",), matches(r"@[a-z0-9.-]{1,255}\.[a-z]{2}"), strict=True, personal=True,
    ),
    Rule("iban", "international bank account numbers, by check digits", numbers.ibans, (), hints.iban, strict=True,
         personal=True),
    Rule("phone_number", "telephone numbers: `+49 …`, `(555) 010-1234`", numbers.phones, (), hints.phone, strict=True,
         personal=True),
    Rule("sql_literal", "text in single quotes or dollar quotes in statements", sql.literals, ("'", "$"),
         has("'", "$"), strict=True, sql=True),
)  # fmt: skip
"""In the order in which they are applied."""

SQL_PARAMETERS = "sql_parameters"
"""The parameters of statements, where a tool records them apart. At the level strict, adapters remove them."""
TOO_DEEP = "nested_too_deeply"
_NAMES = {"password": re.compile(rf"[\w.\- ]{{0,100}}?{_PASSWORDS}", re.IGNORECASE),
          "secret": re.compile(rf"[\w.\- ]{{0,100}}?{_SECRETS}", re.IGNORECASE)}  # fmt: skip
_NOT_SECRET = frozenset({"clientToken", "clientRequestToken", "nextToken", "continuationToken", "progressToken"})
"""Members of AWS and MCP: they make a request count once, continue a list, or name a report of progress."""
_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
_OPTION = re.compile(rf"--?[\w.-]{{0,100}}?(?:{_PASSWORDS}|{_SECRETS})", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?:--?)?[\w.-]{{0,100}}?(?P<rule>(?P<p>{_PASSWORDS})|{_SECRETS})=", re.IGNORECASE)
_WORDS = {"sshpass": "-p", "mongo": "-p", "mongosh": "-p", "redis-cli": "-a", "ldapsearch": "-w", "sqlcmd": "-P",
          "docker login": "-p", "podman login": "-p", "az login": "-p"}  # fmt: skip
_SETTING = re.compile(r"aws_(?:secret_access_key|session_token)", re.IGNORECASE)


def program_of(word: str, program: str) -> str:
    """Return the program that the words after a word belong to: one may start another, as ``sudo`` does."""
    name = word.rpartition("/")[2]
    if name == "login" and f"{program} login" in _PROGRAMS:
        return f"{program} login"
    return name if not program or name in _PROGRAMS or name in _STARTED else program


_STARTED = frozenset({*_WITH_USER, "docker", "podman", "az"})


@lru_cache(maxsize=4096)
def rule_of_member(name: str) -> str | None:
    """Return the rule by which the value of a JSON member is removed whatever it is, or None."""
    if len(name) > 128 or name in _NOT_SECRET:
        return None
    if name.lower() in _HEADERS:
        return "authorization"
    return next((rule for rule, pattern in _NAMES.items() if pattern.fullmatch(name)), None)


def of_word(word: str, before: str, program: str) -> tuple[int, str] | None:
    """Return where the secret begins in a word of a command, and its rule: it goes on to the end of the word.

    None: the word has none by its place. ``before``: the word before. ``program``: the name of the command.
    """
    if (assigned := _ASSIGNED.match(word)) is not None and not word[: assigned.end()].lower().endswith("pwd="):
        return assigned.end(), "password" if assigned["p"] else "secret"
    if not word.startswith("-") and _OPTION.fullmatch(before):
        return 0, "password" if _NAMES["password"].fullmatch(before) else "secret"
    if _SETTING.fullmatch(before):
        return 0, "secret"
    if program in _WORDS and before == _WORDS[program] and not word.startswith("-"):
        return 0, "password_option"
    if program in _WITH_USER and before in ("-u", "--user", "-U", "--proxy-user") and ":" in word:
        return word.index(":") + 1, "password_option"
    option = _PROGRAMS.get(program, "")[:2]
    if option in ("-p", "-a", "-w", "-P") and word.startswith(option) and len(word) > 2:
        return 2, "password_option"
    return None
