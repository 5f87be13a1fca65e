"""Nodes that answer from a record: the client is the limit, and its own work is all that is measured.

`Recorder` stands before real nodes and writes down what they answer to each request. `replay` answers the same requests
without them: pages of real bytes come over real sockets, at no more than the price of sending them. What a request
holds of the moment it was sent, its time and the size of page it asks for, is not looked at.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

_FRAME = struct.Struct(">BBhBi")
_OPTIONS, _QUERY, _PREPARE, _EXECUTE, _STARTUP = 0x05, 0x07, 0x09, 0x0A, 0x01
_READY, _AUTHENTICATE = 0x02, 0x03
_VALUES, _PAGE_SIZE, _NOW = 0x01, 0x04, 0x100
_SEGMENT_BYTES = 128 * 1024 - 1
_SELF_CONTAINED = 1 << 17
_CRC24, _CRC24_POLYNOMIAL = 0x875060, 0x1974F0B
_CRC32 = zlib.crc32(b"\xfa\x2d\x55\xca")
_SEGMENTED = 5
"""The version of the native protocol from which frames travel in segments, with checksums."""

Request = tuple[str, int, int, bytes]
"""A node's name, version, opcode, and what of the body counts."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node answered: the frame's flags, opcode and body."""

    flags: int
    opcode: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the native protocol."""

    version: int
    flags: int
    stream: int
    opcode: int
    body: bytes

    def request(self, node: str) -> Request:
        """Return what a record knows this request by."""
        return node, self.version, self.opcode, _lasting(self.opcode, self.body)


def _lasting(opcode: int, body: bytes) -> bytes:
    """Return a request's body without the size of its page and without its time."""
    if opcode == _QUERY:
        at = 4 + int.from_bytes(body[:4], "big")
    elif opcode == _EXECUTE:
        at = 2 + int.from_bytes(body[:2], "big")
        at += 2 + int.from_bytes(body[at : at + 2], "big")
    else:
        return body
    at += 2
    flags = int.from_bytes(body[at : at + 4], "big")
    head, at = body[: at + 4], at + 4
    begun = at
    if flags & _VALUES:
        count, at = int.from_bytes(body[at : at + 2], "big"), at + 2
        for _ in range(count):
            at += 4 + max(0, int.from_bytes(body[at : at + 4], "big", signed=True))
    values = body[begun:at]
    at += 4 if flags & _PAGE_SIZE else 0
    return head + values + body[at : len(body) - 4 if flags & _NOW else len(body)]


@dataclass
class Stream:
    """One direction of a connection, taken apart into frames as its bytes come."""

    segmented: bool = False
    _raw: bytearray = field(default_factory=bytearray)
    _plain: bytearray = field(default_factory=bytearray)

    def take(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete with these bytes."""
        self._raw += data
        while True:
            if not self.segmented:
                self._plain += self._raw
                self._raw.clear()
            else:
                self._open_segments()
            if len(self._plain) < _FRAME.size:
                return
            version, flags, stream, opcode, length = _FRAME.unpack_from(self._plain)
            if len(self._plain) < _FRAME.size + length:
                return
            body = bytes(self._plain[_FRAME.size : _FRAME.size + length])
            del self._plain[: _FRAME.size + length]
            yield Frame(version & 0x7F, flags, stream, opcode, body)

    def _open_segments(self) -> None:
        at = 0
        while len(self._raw) - at >= 6:
            length = int.from_bytes(self._raw[at : at + 3], "little") & _SEGMENT_BYTES
            if len(self._raw) - at < 6 + length + 4:
                break
            self._plain += self._raw[at + 6 : at + 6 + length]
            at += 6 + length + 4
        del self._raw[:at]


def _crc24(header: int) -> int:
    crc = _CRC24
    for _ in range(3):
        crc ^= (header & 0xFF) << 16
        header >>= 8
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= _CRC24_POLYNOMIAL
    return crc


def segment(payload: bytes, *, whole: bool) -> bytes:
    """Return bytes as one segment; `whole` if it holds all of its frames."""
    header = len(payload) | (_SELF_CONTAINED if whole else 0)
    head = header.to_bytes(3, "little") + _crc24(header).to_bytes(3, "little")
    return head + payload + zlib.crc32(payload, _CRC32).to_bytes(4, "little")


class Spoken:
    """An answer as it is sent, made once: of a long one only the first segment knows which request it belongs to."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        first = _SEGMENT_BYTES - _FRAME.size
        self._first, rest = answer.body[:first], answer.body[first:]
        self._more = b"".join(
            segment(rest[at : at + _SEGMENT_BYTES], whole=False) for at in range(0, len(rest), _SEGMENT_BYTES)
        )

    def on(self, version: int, stream: int, *, segmented: bool) -> tuple[bytes, ...]:
        """Return what is sent in answer to a request of a stream."""
        answer = self._answer
        head = _FRAME.pack(version | 0x80, answer.flags, stream, answer.opcode, len(answer.body))
        if not segmented:
            return head, answer.body
        return segment(head + self._first, whole=not self._more), self._more


Record = dict[Request, Answer]


class Recorder:
    """Passes connections on to nodes, and writes down what each answered to what. `ports`: where, by their address."""

    def __init__(self, nodes: Mapping[str, int], port: int) -> None:
        self.record: Record = {}
        self._nodes = nodes
        self._port = port
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Listen at each node's address, at another port."""
        for node in self._nodes.items():
            self._servers.append(await asyncio.start_server(partial(self._pass_on, node), node[0], self._port))

    async def stop(self) -> None:
        """Listen no longer."""
        for server in self._servers:
            server.close()

    async def _pass_on(self, to: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        node_reader, node_writer = await asyncio.open_connection(*to)
        asked, answered = Stream(), Stream()
        waiting: dict[int, Request] = {}

        async def requests() -> None:
            while data := await reader.read(1 << 16):
                for frame in asked.take(data):
                    waiting[frame.stream] = frame.request(to[0])
                node_writer.write(data)
            node_writer.close()

        async def answers() -> None:
            while data := await node_reader.read(1 << 20):
                for frame in answered.take(data):
                    if (request := waiting.pop(frame.stream, None)) is not None:
                        self.record.setdefault(request, Answer(frame.flags, frame.opcode, frame.body))
                    if frame.opcode in (_READY, _AUTHENTICATE) and frame.version >= _SEGMENTED:
                        asked.segmented = answered.segmented = True
                writer.write(data)
                await writer.drain()
            writer.close()

        await asyncio.gather(requests(), answers(), return_exceptions=True)


class _Answering(asyncio.Protocol):
    def __init__(self, node: str, known: Mapping[Request, Spoken], missing: list[Request]) -> None:
        self._node = node
        self._known = known
        self._missing = missing
        self._stream = Stream()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        assert transport is not None
        for frame in self._stream.take(data):
            spoken = self._known.get(frame.request(self._node))
            if spoken is None:
                self._missing.append(frame.request(self._node))
                transport.abort()
                return
            transport.writelines(spoken.on(frame.version, frame.stream, segmented=self._stream.segmented))
            if frame.opcode == _STARTUP and frame.version >= _SEGMENTED:
                self._stream.segmented = True


async def replay(record: Path, port: int) -> None:
    """Answer from a record, at its nodes' addresses, until cancelled; what it does not know ends the connection."""
    with record.open("rb") as file:
        told: Record = pickle.load(file)
    known = {request: Spoken(answer) for request, answer in told.items()}
    missing: list[Request] = []
    loop = asyncio.get_running_loop()
    for node in sorted({request[0] for request in told}):
        await loop.create_server(lambda node=node: _Answering(node, known, missing), node, port)  # type: ignore[misc]
    print("ready", flush=True)
    while True:
        await asyncio.sleep(0.2)
        while missing:
            print(f"not in the record: {missing.pop()[1:]!r}"[:600], flush=True)


def keep(record: Record, path: Path) -> None:
    """Write a record to a file."""
    with path.open("wb") as file:
        pickle.dump(record, file, protocol=pickle.HIGHEST_PROTOCOL)
