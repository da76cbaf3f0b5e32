"""The objects in S3 that ``grantledger import`` reads, with the credentials, region and endpoint that AWS's tools find.

Source: https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html; error codes:
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    LoginError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from .input_files import S3_SCHEME, InputError

PAGE = 1000
"""Objects per page of the list, the most that S3 gives."""
BUFFER = 256 * 1024
"""Bytes of an object in memory before they are decoded."""
CONNECT_SECONDS = 10
LOG_IN = "check the AWS credentials, for example with `aws sts get-caller-identity`"
RIGHTS = (
    "they need s3:ListBucket on the bucket, s3:GetObject on its objects, and kms:Decrypt on a key that encrypts them"
)
SET_REGION = "the bucket is in another region: set AWS_REGION to it, or correct AWS_ENDPOINT_URL_S3"
ENDPOINT = "check the network, AWS_REGION and AWS_ENDPOINT_URL_S3"
AGAIN = "import it again: what was sent counts once"
_REMEDIES = {
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity"),
        f"S3 rejects the credentials: {LOG_IN}",
    ),
    **dict.fromkeys(("ExpiredToken", "TokenRefreshRequired"), "the credentials have expired: log in to AWS again"),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "403"), f"the credentials may not read it: {RIGHTS}"),
    **dict.fromkeys(("NoSuchKey", "404"), f"the object was deleted during the import: {AGAIN}"),
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"), SET_REGION
    ),
    **dict.fromkeys(("SlowDown", "ServiceUnavailable", "InternalError", "503", "500"), f"S3 is busy: later, {AGAIN}"),
    "PreconditionFailed": f"the object was replaced during the import: {AGAIN}",
    "NoSuchBucket": "there is no such bucket: check its name, and AWS_ENDPOINT_URL_S3 if it is set",
    "InvalidBucketName": "this is not the name of a bucket",
    "InvalidObjectState": "the object is archived: restore it first, for example with `aws s3api restore-object`",
    "RequestTimeTooSkewed": "the clock of this computer is wrong: correct it",
}
_NO_CREDENTIALS = (
    NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, LoginError, SSOError,
    TokenRetrievalError, ProfileNotFound,
)  # fmt: skip


class Objects:
    """The objects of ``s3://BUCKET/PREFIX`` with content, by key; for the full name of an object, it alone.

    Iterating yields name, open file and number of bytes of each; whoever takes a file closes it. One page of the list
    and one buffer of an object are in memory.

    Raises:
        InputError: the address is wrong; from the iterator, the objects cannot be listed, or one cannot be opened.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._bucket, _, self._prefix = address.removeprefix(S3_SCHEME).partition("/")
        if not self._bucket:
            raise InputError(f"{address}: write s3://BUCKET/PREFIX")

    def __iter__(self) -> Iterator[tuple[str, IO[bytes], int]]:
        try:
            with _explained(self._address):
                # A session of its own: boto3's default one would keep the credentials of the first use.
                client = boto3.Session().client("s3", config=Config(connect_timeout=CONNECT_SECONDS))
        except ValueError as error:  # the endpoint is no URL
            raise InputError(f"{self._address}: the settings of AWS are wrong: {ENDPOINT}") from error
        for key in self._keys(client):
            name = f"{S3_SCHEME}{self._bucket}/{key}"
            body = _Body(name, partial(client.get_object, Bucket=self._bucket, Key=key))
            yield name, io.BufferedReader(body, BUFFER), body.size

    def _keys(self, client: Any) -> Iterator[str]:
        listing = client.get_paginator("list_objects_v2")
        pages = iter(listing.paginate(Bucket=self._bucket, Prefix=self._prefix, PaginationConfig={"PageSize": PAGE}))
        empty = True
        while True:
            with _explained(self._address):
                page = next(pages, None)
            if page is None:
                break
            for found in page.get("Contents", ()):
                key = found["Key"]
                empty = empty and key.endswith("/")  # the marker of a folder
                if found["Size"]:
                    yield key
                if key == self._prefix and not key.endswith("/"):  # in the order of keys, it is the first
                    return
        if empty:
            raise InputError(f"{self._address}: no object has this name or prefix: check it with `aws s3 ls`")


class _Body(io.RawIOBase):
    """The bytes of one object. Its errors are ours. After a broken connection it reads on where it was, once per read.

    Args:
        get: the call that gets the object.
    """

    def __init__(self, name: str, get: Callable[..., Any]) -> None:
        self._name = name
        self._get = get
        self._position = 0
        with _explained(name):
            answer = get()
        self._body = answer["Body"]
        self._etag = answer["ETag"]
        self.size: int = answer["ContentLength"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _explained(self._name):
            try:
                data = self._body.read(len(buffer))
            except (HTTPClientError, IncompleteReadError):
                if self._position == self.size:
                    return 0
                self._body.close()
                # The same version of the object, or error PreconditionFailed.
                self._body = self._get(Range=f"bytes={self._position}-", IfMatch=self._etag)["Body"]
                data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Raise what S3 or its client says as one sentence of ours. It never quotes a credential."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise InputError(f"{name}: {_REMEDIES.get(code, f'S3 answered {code}')}") from error
    except _NO_CREDENTIALS as error:
        raise InputError(f"{name}: AWS credentials are missing or incomplete: {LOG_IN}") from error
    except ParamValidationError as error:
        raise InputError(f"{name}: {_REMEDIES['InvalidBucketName']}") from error
    except FlexibleChecksumError as error:
        raise InputError(f"{name}: its bytes differ from its checksum: {AGAIN}") from error
    except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise InputError(f"{name}: S3 does not answer: {ENDPOINT}; then import it again") from error
    except BotoCoreError as error:  # a file of settings, a region that is no name
        raise InputError(f"{name}: the AWS client failed ({type(error).__name__}): {ENDPOINT}") from error
