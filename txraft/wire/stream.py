"""Reads messages from the bytes of a connection, which may arrive in any pieces.

A `RequestReader` reads what the dialling side sends, a `ResponseReader` what the
listening side responds. Parsing resumes where it stopped, so the work is linear in the
bytes. `MessageLimits` bounds everything that a peer can make grow. A reader that has
raised cannot be used any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

from txraft.core.messages import AnyRequest, AnyResponse, InstallSnapshotRequest
from txraft.errors import ProtocolError
from txraft.wire.announced import HEADER_BYTES, announced_length
from txraft.wire.membership import address_from_bytes
from txraft.wire.requests import REQUEST_KINDS, decode_request
from txraft.wire.responses import decode_response

_HTTP_FIRST_BYTES = frozenset(b"CDGHOPT")
_TLS_FIRST_BYTES = frozenset((0x15, 0x16))


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """Bounds on one message from a peer; to exceed one ends the connection.

    *max_message_bytes* counts a request from its type byte to the end of its map,
    without a snapshot's body. *max_response_bytes* is the same for a response.
    *max_string_bytes* bounds one byte string in it, an entry's data for example: no
    more than the format of the log takes.
    *max_entries* bounds the entries of one request and every other list.
    *max_keys* bounds the keys of one map. *max_lists* bounds the lists of one
    message, so that small bytes cannot become large objects.
    *max_snapshot_bytes* bounds the body that a snapshot may announce.
    *max_ahead_bytes* is what may wait unparsed behind a message.
    """

    max_message_bytes: int = 64 << 20
    max_response_bytes: int = 1 << 20
    max_string_bytes: int = (64 << 20) - 256
    max_entries: int = 16384
    max_keys: int = 64
    max_lists: int = 64
    max_snapshot_bytes: int = 1 << 44
    max_ahead_bytes: int = 16 << 20


class _MessageReader:
    """The base of both readers: the unpacker with its limits and counters.

    `pending_bytes` counts the bytes that were fed and are not yet part of a message.
    """

    def __init__(self, limits: MessageLimits, max_bytes: int) -> None:
        self._limits = limits
        self._max_bytes = max_bytes
        # Places in the stream: all bytes so far, and where this message begins.
        self._fed = 0
        self._start = 0
        self.pending_bytes = 0
        # Where the unpacker stopped for a value, the bytes before that place, the
        # newest piece, and the last bytes of the piece before it: see `announced`.
        self._stopped = -1
        self._piece = self._ending = self._before = b""
        self._maps = self._lists = 0
        self._max_maps = limits.max_entries + limits.max_lists
        unpacker = msgpack.Unpacker(
            raw=True,
            strict_map_key=False,
            object_hook=self._count_map,
            list_hook=self._count_list,
            # Pipelined requests wait behind the one that is being read.
            max_buffer_size=max_bytes + limits.max_ahead_bytes,
            max_str_len=limits.max_string_bytes,
            max_bin_len=limits.max_string_bytes,
            max_ext_len=limits.max_string_bytes,
            max_array_len=limits.max_entries,
            max_map_len=limits.max_keys,
        )
        self._unpacker = unpacker
        self._unpack: Callable[[], Any] = unpacker.unpack

    def feed(self, data: bytes) -> None:
        """Add *data*, which has arrived.

        Raises: ProtocolError when more waits unparsed than the limits allow.
        """
        self._fed += len(data)
        self.pending_bytes += len(data)
        self._piece = data
        try:
            self._unpacker.feed(data)
        except msgpack.BufferFull:
            raise self._too_large() from None

    def release(self) -> None:
        """Free all buffers; nothing can be read any more.

        The unpacker and this object refer to each other. Without this, a large buffer
        would stay until the next collection of cycles.
        """
        self._unpacker = msgpack.Unpacker(max_buffer_size=1)
        self._unpack = self._unpacker.unpack
        self._fed = self._start = self.pending_bytes = 0
        self._piece = self._ending = self._before = b""

    def _next_object(self) -> Any:
        """Parse one object; raise OutOfData while the rest of it has not arrived."""
        try:
            value = self._unpack()
        except msgpack.OutOfData:
            self._refuse_what_is_announced()
            if self.pending_bytes > self._max_bytes:
                raise self._too_large() from None
            raise
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            what = type(error).__name__
            raise ProtocolError(f"this is not a message of a peer: {what}") from error
        if self._unpacker.tell() - self._start > self._max_bytes:
            raise self._too_large()
        return value

    def _refuse_what_is_announced(self) -> None:
        """Refuse a value whose announced length exceeds a limit, before it arrives."""
        # The bytes that were just fed may be shorter than what is waited for: the end
        # of the pieces before is kept, no more.
        stopped = self._unpacker.tell()
        waiting = self._fed - stopped
        piece = self._piece
        if len(piece) < waiting + HEADER_BYTES:
            piece = self._ending + piece
        if stopped != self._stopped:
            self._stopped = stopped
            end = len(piece) - waiting
            self._before = piece[max(0, end - HEADER_BYTES) : end]
        self._ending, self._piece = piece[-HEADER_BYTES:], b""
        if stopped - self._start <= HEADER_BYTES:
            return
        length = announced_length(self._before, waiting)
        if stopped - self._start + length > self._max_bytes:
            raise self._too_large()
        if length > self._limits.max_string_bytes:
            raise ProtocolError(
                f"a value of {length} bytes is larger than the limit of "
                f"{self._limits.max_string_bytes}"
            )

    def _message_ended(self) -> None:
        self._start = self._unpacker.tell()
        self.pending_bytes = self._fed - self._start
        self._maps = self._lists = 0
        if not self.pending_bytes:
            self._piece = b""

    def _count_map(self, value: dict[Any, Any]) -> dict[Any, Any]:
        # msgpack bounds each map and list, but not their number: a byte can make an
        # empty map, which takes 64 bytes here.
        self._maps += 1
        if self._maps > self._max_maps:
            raise ProtocolError(f"more than {self._max_maps} maps in a message")
        return value

    def _count_list(self, value: list[Any]) -> list[Any]:
        self._lists += 1
        if self._lists > self._limits.max_lists:
            raise ProtocolError(f"over {self._limits.max_lists} lists in a message")
        return value

    def _too_large(self) -> ProtocolError:
        return ProtocolError(f"a message is larger than {self._max_bytes} bytes")


class RequestReader(_MessageReader):
    """Reads requests in the order they arrive, and the bodies of snapshots."""

    def __init__(self, limits: MessageLimits | None = None) -> None:
        limits = limits or MessageLimits()
        super().__init__(limits, limits.max_message_bytes)
        self._kind: int | None = None
        self.body_left = 0

    def read(self) -> AnyRequest | None:
        """Return the next whole request, or None until more has arrived.

        After an InstallSnapshotRequest `body_left` bytes follow, to be taken with
        `read_body` before the next request can be read.
        Raises: ProtocolError; the connection cannot be read any further.
        """
        assert self.body_left == 0, "the body of a snapshot comes first"
        # Kept between calls: the type byte may arrive long before the map.
        if self._kind is None:
            byte = self._unpacker.read_bytes(1)
            if not byte:
                return None
            self._kind = byte[0]
            if self._kind not in REQUEST_KINDS:
                raise self._odd_kind(self._kind)
        try:
            fields = self._next_object()
        except msgpack.OutOfData:
            return None
        if type(fields) is not dict:
            fields = _map_for(fields)
        request = decode_request(self._kind, fields)
        self._kind = None
        self._message_ended()
        if type(request) is InstallSnapshotRequest:
            self._expect_body(request.size)
        return request

    def read_body(self, max_bytes: int) -> bytes:
        """Return the next piece of a snapshot's body, b"" until more has arrived."""
        piece: bytes = self._unpacker.read_bytes(min(max_bytes, self.body_left))
        self.body_left -= len(piece)
        self._start += len(piece)
        self.pending_bytes -= len(piece)
        return piece

    def _expect_body(self, size: int) -> None:
        if size > self._limits.max_snapshot_bytes:
            raise ProtocolError(
                f"a snapshot of {size} bytes is larger than the limit of "
                f"{self._limits.max_snapshot_bytes}"
            )
        self.body_left = size

    def _odd_kind(self, byte: int) -> ProtocolError:
        if self._start == 0:
            _refuse_other_protocols(byte)
        return ProtocolError(f"unknown request type {byte}")


class ResponseReader(_MessageReader):
    """Reads responses in the order they arrive; the caller knows their requests."""

    def __init__(self, limits: MessageLimits | None = None) -> None:
        limits = limits or MessageLimits()
        super().__init__(limits, limits.max_response_bytes)
        self._error: str | None = None

    def read(self, kind: int) -> tuple[str, AnyResponse | None] | None:
        """Return the next error and response, or None until more has arrived.

        *kind* is the type byte of the request. The error is "" when there is none, and
        the response is None when the peer sent nil.
        Raises: ProtocolError; the connection cannot be read any further.
        """
        try:
            if self._error is None:
                error = self._next_object()
                self._error = "" if error == b"" else self._checked_error(error)
            fields = self._next_object()
        except msgpack.OutOfData:
            return None
        error, self._error = self._error, None
        self._message_ended()
        # With an error Go sends nil or a zero response; without one nil is a zero one.
        if fields is None and error:
            return error, None
        if type(fields) is not dict:
            fields = _map_for(fields)
        return error, decode_response(kind, fields)

    def _checked_error(self, value: object) -> str:
        if value is None:
            return ""
        if type(value) is bytes:
            return address_from_bytes(value)
        if self._start == 0 and type(value) is int:
            _refuse_other_protocols(value)
        raise ProtocolError("an answer does not begin with an error string")


def _map_for(fields: object) -> dict[bytes, Any]:
    """Return an empty map for nil. Raises: ProtocolError for any other value"""
    if fields is None:
        return {}
    raise ProtocolError(f"a message is no map but {type(fields).__name__}")


def _refuse_other_protocols(byte: int) -> None:
    if byte in _HTTP_FIRST_BYTES:
        raise ProtocolError("this looks like HTTP, not like a Raft peer")
    if byte in _TLS_FIRST_BYTES:
        raise ProtocolError("this looks like TLS, but peers are expected without it")
