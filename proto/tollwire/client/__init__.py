"""The client library: ``Client``, and ``AsyncClient`` for asyncio; docs/clients/python.md.

It lives beside the stubs in proto/tollwire, because that folder is the package ``tollwire``, and
needs only what the stubs need: grpcio, protobuf and googleapis-common-protos. It must not import
the service, the rating core or their libraries. The command ``tollwire`` is built on it.
"""

from tollwire.client.async_calls import AsyncPages, AsyncStream
from tollwire.client.async_client import AsyncClient
from tollwire.client.async_uploads import AsyncUpload
from tollwire.client.calls import Pages, Stream
from tollwire.client.client import Client
from tollwire.client.errors import (
    AbortedError,
    AlreadyExistsError,
    CancelledError,
    ConfigurationError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    TollwireError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    UnknownError,
)
from tollwire.client.parameters import DEFAULT, CallInfo
from tollwire.client.uploads import Upload, UploadedChunk, UploadError, UploadResult

__all__ = [
    "DEFAULT",
    "AbortedError",
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncPages",
    "AsyncStream",
    "AsyncUpload",
    "CallInfo",
    "CancelledError",
    "Client",
    "ConfigurationError",
    "DataLossError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "FieldError",
    "InternalError",
    "InvalidArgumentError",
    "NotFoundError",
    "OutOfRangeError",
    "Pages",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "Stream",
    "TollwireError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnknownError",
    "Upload",
    "UploadError",
    "UploadResult",
    "UploadedChunk",
]
