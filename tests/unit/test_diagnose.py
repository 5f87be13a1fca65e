"""What probably happened is said only on evidence, with its counts, in bounded memory and without keys."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, RING_SIZE
from consistency.model.write_times import minute_text, window_text
from consistency.results.cause import Cause, CauseKind
from consistency.results.diagnosis import FEWEST_ROWS, CauseCounter
from consistency.results.findings import Finding, ReplicaView, State, differing_replicas
from consistency.results.kinds import Kind
from consistency.results.recency import newest_of
from consistency.results.timeline import EVERY_ROW, MOST_ENTRIES, Moment, Timeline, runs
from consistency.results.unstreamed import Owned, RangeCounts

A, B, C = (f"10.0.0.{i}:9042" for i in (1, 2, 3))
SECOND = 1_000_000
HOUR = 3600 * SECOND
NIGHT = int(datetime(2026, 7, 14, 2, 10, tzinfo=timezone.utc).timestamp()) * SECOND
STATES = {"c": State.CURRENT, "m": State.MISSING, "s": State.STALE, "u": State.UNREADABLE}


def row(states: str, time_us: int | None, kind: Kind = Kind.MISSING) -> Finding:
    """Return a finding; `states` has a letter for each replica A, B, C (a space: not one)."""
    views = {
        name: ReplicaView(STATES[x], {"v": time_us if x == "c" else 5} if x in "cs" and time_us is not None else {})
        for name, x in zip((A, B, C), states, strict=True)
        if x != " "
    }
    return Finding(kind, "ks", "t", 1, {"id": "canary"}, {"id": "63616e617279"}, views, columns=("v",))


def causes(findings: Iterable[Finding]) -> tuple[Cause, ...]:
    """Return what these findings amount to."""
    counter = CauseCounter()
    for finding in findings:
        counter.add(finding)
    return counter.causes()


def spread(count: int, start_us: int, width_us: int) -> list[int]:
    """Return write times spread evenly."""
    return [start_us + width_us * i // count for i in range(count)]


# One replica, one time.


def test_an_outage_is_named_with_its_replica_its_time_and_its_counts() -> None:
    """98 rows of one quarter of an hour on one replica and two others make one sentence that holds all figures."""
    outage = [row("ccm", t) for t in spread(98, NIGHT, HOUR // 4)]
    found = causes(
        [*outage, row("cmc", NIGHT + HOUR // 8), row("mcc", NIGHT + HOUR // 8), row("ccm", NIGHT - 90 * HOUR)]
    )
    assert found == (
        Cause(
            CauseKind.MISSED_WRITES,
            f"{C} lacks what others hold in 98% (98 of 100) of the differing rows written 2026-07-14 02:10 to 02:24"
            " UTC, and in 1 others: was it down longer than the hint window (max_hint_window), or without hints, or"
            " were the rows that it lacks, 99 of 1 partition, deleted with these through it alone?",
            98,
            (C,),
        ),
    )


@pytest.mark.parametrize(
    ("rows_of_each", "said"),
    [
        (50, "or were the rows that it lacks, 1,000 of 20 partitions, deleted with these through it alone?"),
        (1, "or were the rows that it lacks deleted through it alone?"),
    ],
)
def test_many_rows_of_few_partitions_may_have_been_deleted_with_them(rows_of_each: int, said: str) -> None:
    """Said as a possibility, beside the outage that looks the same, and with no word that accuses the replica."""
    rows = [replace(row("mcc", NIGHT + n * SECOND), token=n // rows_of_each) for n in range(1_000)]
    (cause,) = causes(rows)
    assert cause.sentence.endswith(said)
    assert cause.sentence.startswith(f"{A} lacks what others hold in")
    assert "behind" not in cause.sentence
    assert "wrong" not in cause.sentence


def test_more_partitions_than_are_told_apart_are_not_spoken_of() -> None:
    """Memory is bounded: of 10,001 partitions nothing is said, whatever rows they have."""
    rows = (replace(row("mcc", NIGHT + n), token=n % 10_002) for n in range(100_000))
    (cause,) = causes(rows)
    assert cause.sentence.endswith("or were the rows that it lacks deleted through it alone?")


def test_a_stale_row_is_dated_by_the_write_it_missed() -> None:
    """What counts is the newest write of the columns that differ, wherever it is."""
    finding = Finding(
        Kind.STALE,
        "ks",
        "t",
        1,
        {},
        {},
        {
            A: ReplicaView(State.CURRENT, {"v": [3, None, 9], "w": 50}),
            B: ReplicaView(State.STALE, {"v": [3], "w": 50}),
        },
        columns=("v",),
    )
    assert newest_of(finding) == 9
    assert differing_replicas(finding) == (B,)


def test_two_outages_of_one_node_are_named_both() -> None:
    """Two stretches far apart are not said to be one."""
    times = spread(60, NIGHT, HOUR // 2) + spread(40, NIGHT + 200 * HOUR, HOUR // 2)
    (cause,) = causes(row("ccm", t) for t in times)
    assert "2026-07-14 02:10 to 02:39 UTC and 2026-07-22 10:10 to 10:39 UTC" in cause.sentence
    assert cause.rows == 100


def test_nodes_that_were_down_one_after_another_get_a_sentence_each() -> None:
    """What one node missed does not hide what another did."""
    early = [row("ccm", t) for t in spread(300, NIGHT, HOUR)]
    late = [row("mcc", t) for t in spread(100, NIGHT + 50 * HOUR, HOUR)]
    assert [(c.kind, c.replicas, c.rows) for c in causes(early + late)] == [
        (CauseKind.MISSED_WRITES, (C,), 300),
        (CauseKind.MISSED_WRITES, (A,), 100),
    ]


def test_rows_of_all_times_on_one_replica_are_no_outage() -> None:
    """A replica that loses writes all the time is called that, without a time of its own."""
    (cause,) = causes(row("cs" + "c", t, Kind.STALE) for t in spread(200, NIGHT, 2000 * HOUR))
    assert cause.kind is CauseKind.LAGGING_REPLICA
    assert "100% (200 of 200)" in cause.sentence
    assert "at no one time" in cause.sentence


def test_a_replica_that_could_not_be_read_is_not_counted() -> None:
    """Unknown is neither behind nor up to date."""
    (cause,) = causes(row("ucm", t) for t in spread(50, NIGHT, HOUR // 4))
    assert cause.replicas == (C,)


# Silence.


@pytest.mark.parametrize(
    "findings",
    [
        [],
        [row("ccm", NIGHT) for _ in range(FEWEST_ROWS - 1)],
        [row("".join(s), NIGHT + i * 40 * HOUR) for i, s in enumerate(["ccm", "cmc", "mcc"] * 40)],
        [row("ccm", None) if i % 2 else row("mcc", None) for i in range(100)],
        [row("ccc", NIGHT, Kind.TIE)] * (FEWEST_ROWS - 1),
        [row("ccc", NIGHT, Kind.FUTURE_WRITE_TIME)] * (FEWEST_ROWS - 1),
        [row("c  ", NIGHT, Kind.NON_OWNER)] * (FEWEST_ROWS - 1),
        [row("cmm" if i % 2 else "mmc", NIGHT, Kind.ZOMBIE_SUSPECT) for i in range(100)],
        [row("ccc", NIGHT, Kind.EXPIRY)] * 100,
    ],
    ids=["nothing", "few", "scattered", "undated", "ties", "future", "non_owners", "zombies-everywhere", "expiry"],
)
def test_thin_evidence_says_nothing(findings: list[Finding]) -> None:
    """Too few rows, or rows without a pattern, are no reason to guess."""
    assert causes(findings) == ()


def test_a_time_at_which_others_are_behind_too_is_no_ones_outage() -> None:
    """A replica is named only where it is behind in most of the rows of that time."""
    rows = [row(("ccm", "ccm", "mcc")[i % 3], t) for i, t in enumerate(spread(90, NIGHT, HOUR))]
    assert all(cause.kind is not CauseKind.MISSED_WRITES for cause in causes(rows))


# The other patterns.


def test_rows_of_one_moment_that_no_one_replica_misses_are_torn() -> None:
    """A client that wrote at ONE leaves rows behind that lack now here, now there."""
    rows = [row(("ccm", "cmc", "mcc")[i % 3], t) for i, t in enumerate(spread(90, NIGHT, 4 * SECOND))]
    (cause,) = causes(rows)
    assert cause.kind is CauseKind.TORN_WRITES
    assert cause.rows == 90
    assert "100% (90 of 90)" in cause.sentence
    assert "02:10:00 to 02:10:03 UTC" in cause.sentence


def test_ties_at_whole_milliseconds_name_the_coarse_clock() -> None:
    """Write times that all end in 000 come from clients that count milliseconds."""
    (coarse,) = causes(row("csc", NIGHT + i * 1000, Kind.TIE) for i in range(40))
    (fine,) = causes(row("csc", NIGHT + i, Kind.TIE) for i in range(40))
    assert "40 of them at a whole millisecond" in coarse.sentence
    assert "millisecond" not in fine.sentence
    assert fine.rows == coarse.rows == 40


def test_values_without_a_write_time_blame_no_clock() -> None:
    """Of a counter, and before 5.0 of a collection, no write time is told: a replica may have been down."""
    assert causes([row("ccs", None, Kind.TIE)] * 40) == ()


def test_future_times_name_the_furthest_or_the_unit() -> None:
    """A clock that is wrong and a client that passes nanoseconds look different."""
    (clock,) = causes(row("ccc", NIGHT + i * 24 * HOUR, Kind.FUTURE_WRITE_TIME) for i in range(30))
    (unit,) = causes(row("ccc", NIGHT * 1000, Kind.FUTURE_WRITE_TIME) for _ in range(30))
    assert "up to 2026-08-12" in clock.sentence
    assert "nanoseconds" in unit.sentence


def test_zombies_on_one_replica_name_it() -> None:
    """A node that holds nearly all of them missed the deletes."""
    (cause,) = causes(row("mcm", NIGHT, Kind.ZOMBIE_SUSPECT) for _ in range(30))
    assert (cause.kind, cause.replicas, cause.rows) == (CauseKind.OLD_COPY, (B,), 30)


def test_rows_of_non_owners_point_at_cleanup() -> None:
    """Rows left on nodes that lost their ranges."""
    (cause,) = causes(row("  c", NIGHT, Kind.NON_OWNER) for _ in range(30))
    assert (cause.kind, cause.replicas) == (CauseKind.NO_CLEANUP, (C,))


TOKENS = [MIN_TOKEN + RING_SIZE * i // 8 for i in range(1, 9)]
"""A ring of eight ranges."""


def counted_at(states: str, tokens: Iterable[int], times: Sequence[int]) -> CauseCounter:
    """Count a row at each token, written at the times in turn."""
    counter = CauseCounter(TOKENS)
    for i, token in enumerate(tokens):
        counter.add(replace(row(states, times[i % len(times)]), token=token))
    return counter


def tokens_in(ranges: Iterable[int], each: int = 25) -> list[int]:
    """Return tokens spread over some of the eight ranges."""
    width = RING_SIZE // 8
    return [MIN_TOKEN + r * width + (i + 1) * width // (each + 1) for r in ranges for i in range(each)]


def test_a_replica_that_lacks_whole_ranges_did_not_stream_them() -> None:
    """Where all that it lacks is all that some ranges hold, that is the cause; where they hold more, a time is."""
    counter = counted_at("ccm", tokens_in([1, 2, 5]), [NIGHT])
    (cause,) = counter.causes(Owned({"ks.t": 200}, {C: 1.0}))
    assert cause == Cause(
        CauseKind.JOINED_WITHOUT_STREAMING,
        f"{C} lacks 75 of about 75 rows in 2 token ranges, and no others: did it gain these ranges without streaming"
        " (auto_bootstrap: false, a move, a raised replication factor)?",
        75,
        (C,),
    )
    (outage,) = counter.causes(Owned({"ks.t": 2_000}, {C: 1.0}))
    assert outage.kind is CauseKind.MISSED_WRITES


def test_ranges_that_hold_a_few_partitions_may_be_hollow_by_their_deletes() -> None:
    """Three partitions of 25 rows are all that their ranges hold: no stream was missed if these were deleted."""
    counter = counted_at("ccm", [token for token in tokens_in([1, 2, 5], 1) for _ in range(25)], [NIGHT])
    for share, kind in ((1.0, CauseKind.JOINED_WITHOUT_STREAMING), (0.375, CauseKind.HOLDS_NOTHING)):
        (cause,) = counter.causes(Owned({"ks.t": 200}, {C: share}))
        assert cause.kind is kind
        assert cause.sentence.endswith("lacks, 75 of 3 partitions, deleted with these through it alone?")


def test_a_large_partition_is_no_range_that_was_not_streamed() -> None:
    """A range that should hold 25 rows, and of which a replica lacks 1,000: they are of one partition."""
    counter = counted_at("ccm", [7] * 1_000, [NIGHT])
    (cause,) = counter.causes(Owned({"ks.t": 200}, {C: 1.0}))
    assert cause.kind is CauseKind.MISSED_WRITES
    assert cause.sentence.endswith("1,000 of 1 partition, deleted with these through it alone?")


def test_several_replicas_with_hollow_ranges_point_at_a_raised_factor() -> None:
    """One joins, all gain ranges when the factor is raised."""
    counter = counted_at("ccm", tokens_in([1, 2]), spread(50, NIGHT, 5000 * HOUR))
    for token in tokens_in([4, 5]):
        counter.add(replace(row("cmc", NIGHT), token=token))
    (cause,) = counter.causes(Owned({"ks.t": 200}, {B: 1.0, C: 1.0}))
    assert (cause.kind, cause.replicas, cause.rows) == (CauseKind.REPLICATION_RAISED, (B, C), 100)


def test_an_empty_replica_is_told_from_one_that_was_down() -> None:
    """Of a replica that lacks all it owns both are possible, and where the rows are of one time both are asked."""
    owned = Owned({"ks.t": 200}, {C: 0.5})
    everything = tokens_in([0, 1, 2, 3])
    (short,) = counted_at("ccm", everything, spread(100, NIGHT, HOUR // 4)).causes(owned)
    (long,) = counted_at("ccm", everything, spread(100, NIGHT, 5000 * HOUR)).causes(owned)
    assert short.kind is long.kind is CauseKind.HOLDS_NOTHING
    assert "was it down while they were written (2026-07-14 02:10" in short.sentence
    assert "was it down" not in long.sentence


def test_the_ranges_of_a_ring_hold_every_token() -> None:
    """The first and the last token there is, and those on a border, fall into a range; no ring at all is one."""
    for tokens in (TOKENS, [5], [], [MAX_TOKEN], [MIN_TOKEN, 0]):
        counts = RangeCounts(tokens)
        for token in (MIN_TOKEN + 1, 0, 5, MAX_TOKEN):
            counts.add(C, "ks.t", token)
        assert counts.hollow(Owned({"ks.t": 0}, {})) == ()
    assert RangeCounts([]).hollow(Owned()) == ()


# What a sentence holds, and what counting costs.


def test_sentences_hold_no_keys_and_nothing_invisible() -> None:
    """A name that comes from the cluster cannot move a cursor, and no part of a key is said."""
    rows = [row("ccm", t) for t in spread(50, NIGHT, HOUR // 4)]
    hostile = [
        Finding(f.kind, f.keyspace, f.table, 1, f.key, f.key_hex, {"\x1b[2J\u202e": f.replicas[C], A: f.replicas[A]})
        for f in rows
    ]
    (cause,) = causes(hostile)
    assert cause.sentence.isprintable()
    assert "canary" not in cause.sentence
    assert set(cause.as_json()) == {"cause", "sentence", "rows", "replicas"}


def test_two_hundred_thousand_findings_are_counted_in_bounded_memory() -> None:
    """An outage is found among write times of years, and no more entries are kept than are allowed."""
    rng = random.Random(7)
    counter = CauseCounter()
    for i in range(200_000):
        if i % 10:
            counter.add(row("ccm", NIGHT + rng.randrange(HOUR)))
        else:
            counter.add(row(rng.choice(["cmc", "mcc"]), NIGHT - rng.randrange(30_000 * HOUR)))
    assert len(counter._timeline) <= MOST_ENTRIES
    (cause,) = counter.causes()
    assert (cause.kind, cause.replicas) == (CauseKind.MISSED_WRITES, (C,))
    assert cause.rows == 180_000


def test_a_full_timeline_is_a_few_megabytes() -> None:
    """What is kept is bounded in bytes too."""
    tracemalloc.start()
    timeline = Timeline()
    for i in range(MOST_ENTRIES // 2):
        timeline.add(NIGHT + i * 10 * SECOND, [A, B, C], {C})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(timeline) <= MOST_ENTRIES
    assert peak < 25_000_000


def test_a_timeline_keeps_its_bound_and_its_counts() -> None:
    """Buckets widen until they are few enough; no row is lost by it, whatever the times are."""
    timeline = Timeline(most=50)
    times = [-(10**18), 0, 10**18, *(NIGHT + i * HOUR for i in range(500))]
    for time_us in times:
        timeline.add(time_us, [A, B], {B})
    assert len(timeline) <= 50
    assert sum(m.behind for m in timeline.moments(B)) == len(times)
    assert sum(m.behind for m in timeline.moments(A)) == 0
    assert sum(m.rows for m in timeline.moments(EVERY_ROW)) == len(times)
    assert max(m.last_us for m in timeline.moments(B)) == 10**18


def test_runs_end_at_gaps_and_count_what_lies_within() -> None:
    """Rows in which the replica is not behind count for the run that they lie in, not for the gap between two."""
    moments = [Moment(2, 2, 0, 5), Moment(7), Moment(1, 1, 9, 9), Moment(4), Moment(3, 3, 100, 100)]
    assert runs(moments, 10) == [Moment(10, 3, 0, 9), Moment(3, 3, 100, 100)]


@pytest.mark.parametrize(
    ("first", "last", "text"),
    [
        (NIGHT, NIGHT + HOUR, "2026-07-14 02:10 to 03:10 UTC"),
        (NIGHT, NIGHT + 4 * SECOND, "2026-07-14 02:10:00 to 02:10:04 UTC"),
        (NIGHT, NIGHT, "2026-07-14 02:10:00 UTC"),
        (NIGHT, NIGHT + 24 * HOUR, "2026-07-14 02:10 to 2026-07-15 02:10 UTC"),
        (0, 10**20, "0 to 100000000000000000000 us"),
    ],
)
def test_a_stretch_of_time_reads_well(first: int, last: int, text: str) -> None:
    """Short ones to the second, the date once, and no number breaks it."""
    assert window_text(first, last) == text
    assert minute_text(10**20) == "100000000000000000000 us"


def test_rows_that_one_replica_alone_holds_do_not_blame_the_others() -> None:
    """Node C was down while rows were updated and others deleted: it is behind, and nobody else is to blame."""
    deleted = [row("mmc", t) for t in spread(45, NIGHT - HOUR, HOUR // 100)]
    updated = [row("ccm", t) for t in spread(36, NIGHT, HOUR // 100)]
    found = causes([*deleted, *updated])
    assert [(cause.kind, cause.replicas, cause.rows) for cause in found] == [
        (CauseKind.MISSED_DELETES, (C,), 45),
        (CauseKind.MISSED_WRITES, (C,), 36),
    ]
    assert "were they deleted while it was down" in found[0].sentence
    few = causes([row("mmc", NIGHT)] * (FEWEST_ROWS - 1))
    assert few == ()


MS = 1_764_000_000_000
"""A time of ours in milliseconds: to Cassandra some weeks after 1970 began."""


@pytest.mark.parametrize("kind", [Kind.MISSING, Kind.STALE, Kind.TIE, Kind.ZOMBIE_SUSPECT])
@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([MS + i for i in range(30)], "30 in milliseconds"),
        ([MS // 1000 + i for i in range(30)], "30 in seconds"),
        ([-5 - i for i in range(30)], "30 negative"),
        ([*[MS + i for i in range(20)], *[-1 - i for i in range(10)]], "20 in milliseconds, 10 negative"),
        ([1] * 30, "one and the same write time, 1: does a client set a constant"),
        ([MS] * 30, f"one and the same write time, {MS}"),
    ],
)
def test_odd_write_times_are_the_cause_and_nothing_else_is(kind: Kind, times: list[int], said: str) -> None:
    """Who counts in milliseconds, or with a constant, explains the rows: no downtime, no old copy is guessed."""
    (cause,) = causes(row("ccm", time, kind) for time in times)
    assert (cause.kind, cause.rows) == (CauseKind.ODD_WRITE_TIMES, 30)
    assert said in cause.sentence
    assert "?" in cause.sentence
    assert "canary" not in cause.sentence


def test_a_few_odd_write_times_hide_no_other_cause() -> None:
    """Below the least number they are not spoken of, and the outage is named as ever."""
    found = causes([*[row("ccm", t) for t in spread(60, NIGHT, HOUR // 4)], *[row("ccm", MS + i) for i in range(9)]])
    assert [cause.kind for cause in found] == [CauseKind.MISSED_WRITES]
