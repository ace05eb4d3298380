"""Turn errors of Twisted and OpenSSL into a sentence that says why."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.python.failure import Failure
from twisted.web.client import PartialDownloadError


def reason_of(error: BaseException | None) -> str:
    """Say why *error* happened: its own text, or else the name of its class.

    For an error that wraps others, such as a failed request, these are asked instead.
    """
    reasons = getattr(error, "reasons", None)
    if isinstance(reasons, list):
        wrapped = [reason_of(e.value) for e in reasons if isinstance(e, Failure)]
        return "; ".join(dict.fromkeys(wrapped)) or type(error).__name__
    if isinstance(error, SSL.Error):
        return _tls_reason(error)
    if isinstance(error, PartialDownloadError) and error.message:
        return error.message.decode("utf-8", "replace")
    text = str(error).rstrip(".")
    return text or type(error).__name__


def _tls_reason(error: SSL.Error) -> str:
    """Take the reasons out of OpenSSL's tuples of library, function and reason."""
    queue = error.args[0] if error.args else ()
    if isinstance(queue, str):
        return f"TLS: {queue}"
    if not isinstance(queue, list | tuple):
        queue = ()
    found = [str(each[-1]) for each in queue if isinstance(each, tuple) and each]
    return f"TLS: {', '.join(found) or 'the connection was ended'}"
