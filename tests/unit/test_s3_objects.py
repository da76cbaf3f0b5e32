"""Objects in S3 as files of ``grantledger import``: moto answers in this process, or canned answers do."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.httpsession
import botocore.loaders
import botocore.response
import botocore.session
import pytest
from backports import zstd
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ResponseStreamingError
from moto import mock_aws

from grantledger.producers import s3_objects
from grantledger.producers.adapters import make_adapter
from grantledger.producers.importer import Importer
from grantledger.producers.input_files import InputError, inputs
from grantledger.schemas.event import Event
from support.cloudtrail import TAKEN, record
from support.command import invoke as run

SECRET, KEY_ID = "secretsecretsecret", "AKIAEXAMPLEEXAMPLE02"
ROOM = "AWSLogs/111122223333/CloudTrail"


@pytest.fixture(scope="module")
def loader() -> Any:
    """The descriptions of AWS's services, read from the disk once."""
    return botocore.loaders.create_loader()


@pytest.fixture(autouse=True)
def _aws(loader: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(botocore.session, "create_loader", lambda *_: loader)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    set_to = {
        "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
    }  # fmt: skip
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(_aws: None) -> Iterator[Any]:
    with mock_aws():
        made = boto3.Session().resource("s3").Bucket("trails")
        made.create()
        yield made


def calls(first: int, count: int) -> bytes:
    found = [record("ec2", "RunInstances", userIdentity=TAKEN, eventID=f"e{first + n}") for n in range(count)]
    return json.dumps({"Records": found}).encode()


def feed(*names: str) -> tuple[list[str], list[Event]]:
    read, events = [], []
    importer = Importer(make_adapter("cloudtrail"), events.append)
    for file in inputs(names):
        with file:
            read.append(file.name)
            importer.run(file)
            assert file.position() == file.size
    assert not importer.report.failures
    return read, events


def test_objects_by_folder_and_by_s3_give_the_same_ids(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_objects, "PAGE", 2)
    contents = {
        f"{ROOM}/a b+%41#?é.json": calls(0, 2),
        f"{ROOM}/b.json.gz": gzip.compress(calls(2, 2)),
        f"{ROOM}/c.json.zst": zstd.compress(calls(4, 2)),
        f"{ROOM}/d/1.json": calls(6, 2),
        f"{ROOM}/d/2.json": calls(8, 2),
    }
    # In another order than that of their keys, with the marker of a folder and an empty object.
    for key in reversed(contents):
        bucket.put_object(Key=key, Body=contents[key])
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[key])
    for key in ("AWSLogs/", f"{ROOM}/d/", f"{ROOM}/d/0.json"):
        bucket.put_object(Key=key, Body=b"")
    bucket.put_object(Key="Other/x.json", Body=calls(90, 1))
    read, events = feed("s3://trails/AWSLogs/")
    assert read == [f"s3://trails/{key}" for key in contents]
    _, of_folder = feed(str(tmp_path / "AWSLogs"))
    assert [event.event_id for event in events] == [event.event_id for event in of_folder]
    assert len({event.event_id for event in events}) == 10


def test_files_and_objects_in_one_command(bucket: Any, tmp_path: Path) -> None:
    for key in ("trail", "trail.1", "tail", "broken.log"):
        bucket.put_object(Key=key, Body=calls(len(key), 1) if key != "broken.log" else b"nonsense\n")
    (tmp_path / "file").write_bytes(calls(0, 1))
    # The full name of an object means it alone; the beginning of names means them all; no name means the bucket.
    read, _ = feed("s3://trails/trail", str(tmp_path / "file"), "s3://trails/t")
    assert read == [
        "s3://trails/trail",
        str(tmp_path / "file"),
        *(f"s3://trails/{x}" for x in ("tail", "trail", "trail.1")),
    ]
    result = run("import", "cloudtrail", str(tmp_path), "s3://trails", "--dry-run", "-o", "json")
    assert result.exit_code == 1
    assert "reading s3://trails/trail.1\n" in result.stderr
    assert "failed: s3://trails/broken.log:1: not JSON" in result.stderr
    report = json.loads(result.stdout)
    assert (report["mapped"], report["failures"][0]["place"]) == (4, "s3://trails/broken.log:1")


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
def test_an_object_is_read_as_a_stream(bucket: Any, compress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = random.Random(1)
    lines = b"".join(b'{"text":"%s"}\n' % texts.randbytes(5000).hex().encode() for _ in range(500))
    bucket.put_object(Key="big", Body=compress(lines))
    monkeypatch.setattr(s3_objects, "BUFFER", 4096)
    (file,) = inputs(["s3://trails/big"])
    with file:
        records = file.records(Importer(make_adapter("vault"), lambda event: None).envelopes)
        next(records)
        assert file.size is not None and 0 < file.position() < file.size / 2
        assert sum(1 for _ in records) == 499


def test_a_broken_connection_continues_where_it_broke(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put_object(Key="a", Body=calls(0, 50))
    whole = feed("s3://trails/a")[1]
    original, reads = botocore.response.StreamingBody.read, []

    def read(body: Any, amt: int | None = None) -> bytes:
        reads.append(amt)
        if len(reads) % 3 == 0:
            raise ResponseStreamingError(error="broken")
        return original(body, min(amt or 0, 5000))

    monkeypatch.setattr(botocore.response.StreamingBody, "read", read)
    assert [event.event_id for event in feed("s3://trails/a")[1]] == [event.event_id for event in whole]
    assert len(reads) > 3
    # Another object of the same name is no continuation.
    reads.clear()
    with pytest.raises(InputError, match="s3://trails/a: the object was replaced during the import: import it again"):
        for file in inputs(["s3://trails/a"]):
            with file:
                bucket.put_object(Key="a", Body=calls(60, 50))
                Importer(make_adapter("cloudtrail"), lambda event: None).run(file)


def test_an_object_that_vanishes(bucket: Any) -> None:
    for key in "ab":
        bucket.put_object(Key=key, Body=calls(0, 1))
    files = inputs(["s3://trails"])
    with next(files):
        bucket.Object("b").delete()
    with pytest.raises(InputError, match="s3://trails/b: the object was deleted during the import: import it again"):
        next(files)


@pytest.mark.parametrize(
    "address, said",
    [
        ("s3://trails/none", "s3://trails/none: no object has this name or prefix"),
        ("s3://trails/folder/", "s3://trails/folder/: no object has this name or prefix"),
        ("s3://other/x", "s3://other/x: there is no such bucket: check its name"),
        ("s3://NO BUCKET/x", "s3://NO BUCKET/x: this is not the name of a bucket"),
        ("s3://", "s3://: write s3://BUCKET/PREFIX"),
        ("s3:///x", "s3:///x: write s3://BUCKET/PREFIX"),
    ],
)
def test_what_is_not_there_is_one_sentence(bucket: Any, address: str, said: str) -> None:
    bucket.put_object(Key="folder/", Body=b"")
    result = run("import", "cloudtrail", address, "--dry-run")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"grantledger: {said}") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "status, code, said",
    [
        (403, "AccessDenied", "the credentials may not read it: they need s3:ListBucket on the bucket, s3:GetObject"),
        (403, "InvalidAccessKeyId", "S3 rejects the credentials: check the AWS credentials, for example with `aws sts"),
        (403, "SignatureDoesNotMatch", "S3 rejects the credentials"),
        (400, "ExpiredToken", "the credentials have expired: log in to AWS again"),
        (301, "PermanentRedirect", "the bucket is in another region: set AWS_REGION to it"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region"),
        (503, "SlowDown", "S3 is busy: later, import it again: what was sent counts once"),
        (418, "Teapot", "S3 answered Teapot"),
    ],
)
def test_what_s3_refuses_is_one_sentence_without_credentials(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, said: str
) -> None:
    body = f"<Error><Code>{code}</Code><Message>{KEY_ID}</Message><AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId></Error>"

    def send(_: Any, request: Any) -> AWSResponse:
        if request.method == "HEAD":  # botocore asks for the region of the bucket
            return AWSResponse(request.url, 404, {}, SimpleNamespace(stream=lambda: iter([b""])))
        answer = SimpleNamespace(stream=lambda: iter([body.encode()]))
        return AWSResponse(request.url, status, {"content-type": "application/xml"}, answer)

    monkeypatch.setattr(botocore.httpsession.URLLib3Session, "send", send)
    result = run("import", "cloudtrail", "s3://trails/a", "--dry-run")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"grantledger: s3://trails/a: {said}") and result.stderr.count("\n") == 1
    assert KEY_ID not in result.stderr and SECRET not in result.stderr


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "AWS credentials are missing or incomplete"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "AWS credentials are missing or incomplete"),
        ({"AWS_PROFILE": "nobody"}, "AWS credentials are missing or incomplete"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "S3 does not answer: check the network"),
        ({"AWS_ENDPOINT_URL_S3": "nonsense"}, "the settings of AWS are wrong: check the network, AWS_REGION and"),
        ({"AWS_DEFAULT_REGION": "no region"}, "the AWS client failed (InvalidRegionError): check the network, AWS_REG"),
    ],
)
def test_wrong_settings_of_aws_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str | None], said: str
) -> None:
    for name, value in settings.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    result = run("import", "cloudtrail", "s3://trails/a", "--dry-run")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"grantledger: s3://trails/a: {said}") and result.stderr.count("\n") == 1
