"""The place of each node: address and ports, data centre and rack, tokens. Pure arithmetic."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sandbox.options import SandboxOptions

RING_START = -(2**63)
RING_SIZE = 2**64
# Keeps the tokens of the data centres apart: no two nodes of a cluster may hold the same token.
DC_OFFSET = 1_000_003


@dataclass(frozen=True)
class NodePlace:
    """The facts of a node that never change once it has data."""

    n: int
    address: str
    port: int
    storage_port: int
    dc: str
    rack: str
    tokens: tuple[int, ...]

    @property
    def endpoint(self) -> str:
        """Its name for the other nodes."""
        return f"{self.address}:{self.storage_port}"


def plan_cluster(options: SandboxOptions) -> tuple[NodePlace, ...]:
    """Place the initial nodes, their tokens interleaved evenly within each data centre."""
    places: list[NodePlace] = []
    for dc_index, (dc, count) in enumerate(options.dc_counts.items()):
        tokens = interleaved_tokens(count, options.num_tokens, dc_index * DC_OFFSET)
        places.extend(
            _place(options, len(places) + 1, dc, index, node_tokens) for index, node_tokens in enumerate(tokens)
        )
    return tuple(places)


def plan_joining(options: SandboxOptions, n: int, dc: str, existing: Iterable[NodePlace]) -> NodePlace:
    """Place node `n` that joins `dc` later: its tokens halve the widest gaps of that data centre."""
    others = tuple(existing)
    neighbours = [place for place in others if place.dc == dc]
    taken = {token for place in others for token in place.tokens}
    own = [token for place in neighbours for token in place.tokens]
    tokens: list[int] = []
    for _ in range(options.num_tokens):
        tokens.append(_free_token(_middle_of_widest_gap(own + tokens), taken | set(tokens)))
    return _place(options, n, dc, len(neighbours), tuple(sorted(tokens)))


def interleaved_tokens(nodes: int, num_tokens: int, offset: int = 0) -> list[tuple[int, ...]]:
    """Cut the ring into equal slots and deal them out round robin, `num_tokens` to each node."""
    slots = nodes * num_tokens
    # Half a slot in, so that no token is the ring's minimum, which Murmur3 reserves.
    tokens = [RING_START + (2 * slot + 1) * RING_SIZE // (2 * slots) + offset for slot in range(slots)]
    return [tuple(tokens[node::nodes]) for node in range(nodes)]


def owner_of(token: int, places: Sequence[NodePlace]) -> NodePlace:
    """Return the node that has the first of all their tokens from this one on, around the ring."""
    held = sorted((at, n) for n, place in enumerate(places) for at in place.tokens)
    return places[next((n for at, n in held if at >= token), held[0][1])]


def _place(options: SandboxOptions, n: int, dc: str, index_in_dc: int, tokens: tuple[int, ...]) -> NodePlace:
    shift = n - 1
    base = ipaddress.IPv4Address(options.address_base)
    return NodePlace(
        n=n,
        address=str(base if options.one_address else base + shift),
        port=options.port + (shift if options.one_address else 0),
        storage_port=options.storage_port + (shift if options.one_address else 0),
        dc=dc,
        rack=f"rack{index_in_dc % options.racks + 1}",
        tokens=tokens,
    )


def _middle_of_widest_gap(tokens: list[int]) -> int:
    if not tokens:
        return 0
    ring = sorted(tokens)
    gaps = [(after - before) % RING_SIZE or RING_SIZE for before, after in zip(ring, ring[1:] + ring[:1], strict=True)]
    widest = max(range(len(ring)), key=lambda i: (gaps[i], -i))
    return _wrap(ring[widest] + gaps[widest] // 2)


def _free_token(token: int, taken: set[int]) -> int:
    while token in taken or token == RING_START:
        token = _wrap(token + 1)
    return token


def _wrap(token: int) -> int:
    return (token - RING_START) % RING_SIZE + RING_START
