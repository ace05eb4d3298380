"""Reasons of failures are words, never a Python object."""

from __future__ import annotations

from OpenSSL.SSL import Error as TLSError
from OpenSSL.SSL import SysCallError, ZeroReturnError
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import (
    PartialDownloadError,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)

from txraft.client.exchange import TimedOut
from txraft.reasons import reason_of

UNTRUSTED = TLSError([("SSL routines", "", "certificate verify failed")])


class Reasons(SynchronousTestCase):
    """Each kind of failure that a connection can have."""

    def test_wrapped(self) -> None:
        """Of a request that failed it is said what ended its connection."""
        lost = Failure(ConnectionLost("reset by peer"))
        for kind in (
            ResponseNeverReceived,
            ResponseFailed,
            RequestTransmissionFailed,
            RequestGenerationFailed,
        ):
            self.assertIn("Connection to the other side", reason_of(kind([lost])))
            self.assertIn("reset by peer", reason_of(kind([lost, lost])))

    def test_said_once(self) -> None:
        """The same reason twice is one."""
        done = Failure(ConnectionDone())
        text = reason_of(ResponseFailed([done, done]))

        self.assertEqual(text, "Connection was closed cleanly")

    def test_tls(self) -> None:
        """OpenSSL's own words are told, not its tuples."""
        wrapped = ResponseNeverReceived([Failure(UNTRUSTED)])

        self.assertEqual(reason_of(UNTRUSTED), "TLS: certificate verify failed")
        self.assertEqual(reason_of(wrapped), "TLS: certificate verify failed")

    def test_no_object_is_printed(self) -> None:
        """Whatever fails, no brackets of Python are in what is told."""
        errors = [
            UNTRUSTED,
            TLSError(),
            TLSError([]),
            SysCallError(-1, "Unexpected EOF"),
            ZeroReturnError(),
            PartialDownloadError(0, b"the answer was cut off"),
            ConnectionRefusedError(111, "Connection refused"),
            ResponseNeverReceived([Failure(ConnectionLost())]),
            ResponseFailed([]),
            TimedOut("no answer within 5 s"),
            ValueError(),
        ]
        for error in errors:
            text = reason_of(error)
            self.assertTrue(text, error)
            for mark in ("<", ">", "[", "(", "0 the"):
                self.assertNotIn(mark, text, error)
