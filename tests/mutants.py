"""Break the program on purpose, one place at a time, and see that the suite notices: python -m tests.mutants [WORD].

Each mutant is a copy of the tree with one line changed; the tests named for it must fail there. A mutant that
survives, or whose text is no longer in the file, is reported, and the exit code is 1.
"""
# ruff: noqa: T201 - a command that prints

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMISES = "tests/unit/test_simulation.py::test_every_promise_is_kept_on_every_seed"
CLOCKS = "tests/unit/test_clocks.py tests/unit/test_repair_applying.py"
HOST_IDS = "tests/unit/test_identity.py"
LAWS = "tests/unit/test_repair_simulation.py tests/unit/test_repair_decide.py tests/unit/test_repair_actions.py"


@dataclass(frozen=True)
class Mutant:
    """One line made wrong, and the tests that must notice."""

    what: str
    place: str
    old: str
    new: str
    tests: str = PROMISES


MUTANTS = (
    Mutant("digest: values are left out", "consistency/cql.py",
           "out = [name] if column.value else []", "out: list[str] = []"),
    Mutant("digest: expiry is left out", "consistency/cql.py", "if column.ttl:", "if False:",
           f"{PROMISES} tests/unit/test_reading.py"),
    Mutant("digest: a page's bytes are not hashed", "consistency/replicas.py",
           "state.update(page.body)", "state.update(b'')", "tests/unit/test_replicas.py"),
    Mutant("digest: the pages after the first are not read", "consistency/replicas.py",
           "if page.paging_state is None:\n                return\n            st", "return\n            st",
           "tests/unit/test_replicas.py"),
    Mutant("pieces: of a range's digests the last one alone counts", "consistency/pieces.py",
           "digests.append(piece.digest)", "digests = [piece.digest]", "tests/unit/test_pieces.py"),
    Mutant("pieces: of their sums the first alone is added", "consistency/serverdigest.py",
           "for at in range(0, len(one.value), size))", "for at in range(0, size, size))", "tests/unit/test_pieces.py"),
    Mutant("pieces: what is left over of a range is not read", "consistency/pieces.py",
           "return TokenRange(left.start, end), TokenRange(end, left.end)", "return TokenRange(left.start, end), None",
           "tests/unit/test_pieces.py"),
    Mutant("digest: equal counts are equal digests", "consistency/tree.py",
           "name + digest.value)", "name)", "tests/unit/test_tree.py"),
    Mutant("digest: other rows of the same number are equal", "consistency/tree.py",
           "    value: bytes\n", "    value: bytes = field(compare=False)\n"),
    Mutant("tree: two groups of replicas count as agreed", "consistency/leaves.py",
           "return len(agreeing_groups(self.digests)) > 1", "return len(agreeing_groups(self.digests)) > 2"),
    Mutant("tree: the right child is not hashed", "consistency/tree.py",
           "level) + left + right)", "level) + left + left)", f"{PROMISES} tests/unit/test_tree.py"),
    Mutant("tree: children are hashed in no order", "consistency/tree.py",
           "level) + left + right)", "level) + min(left, right) + max(left, right))", "tests/unit/test_tree.py"),
    Mutant("tree: the last child is never looked at", "consistency/tree.py",
           "for i in (2 * position, 2 * position + 1) if", "for i in (2 * position,) if", "tests/unit/test_tree.py"),
    Mutant("descent: of the partitions that differ one is looked into", "consistency/oddpartitions.py",
           "for key in odd:", "for key in list(odd)[:1]:", "tests/unit/test_oddrows.py"),
    Mutant("descent: a partition that one replica has alone is overlooked", "consistency/oddpartitions.py",
           "for row in set[RawRow]().union(*told):", "for row in told[0]:", "tests/unit/test_oddrows.py"),
    Mutant("by partition: a leaf of which most rows differ is taken for clean", "consistency/oddpartitions.py",
           "if len(known) < len(found):", "if False:", "tests/unit/test_oddpartitions.py"),
    Mutant("by partition: no replica tells the newest write time", "consistency/oddpartitions.py",
           "newest=node == leaf.replicas[0])", "newest=False)", "tests/unit/test_oddpartitions.py"),
    Mutant("by partition: the sums of a leaf's partitions are those of the first", "consistency/serverdigest.py",
           'signed=True) for row in rows)\n        return Digest(count',
           'signed=True) for row in list(rows)[:1])\n        return Digest(count', "tests/unit/test_oddpartitions.py"),
    Mutant("rows read together: a row by another name passes for missing", "consistency/batches.py",
           "return set(self.keys).issuperset(found)", "return True", "tests/unit/test_rowread.py"),
    Mutant("pages: rows are taken for alike by their first one", "consistency/wire.py",
           "            if any(self.body[at + i :: row.size] != prefix[i : i + 1] * self.row_count for i in range(4)):",
           "            if False:", "tests/unit/test_wire.py"),
    Mutant("locality: a trace that asked another node is believed", "consistency/locality.py",
           "if event.source != broadcast or _ASKED_ANOTHER.match(event.activity):", "if event.source != broadcast:",
           "tests/unit/test_locality.py"),
    Mutant("locality: events of other nodes are overlooked", "consistency/locality.py",
           "if event.source != broadcast or _ASKED_ANOTHER.match(event.activity):",
           "if _ASKED_ANOTHER.match(event.activity):", "tests/unit/test_locality.py"),
    Mutant("alive: a node that does not answer us is down", "consistency/placement.py",
           "return serves(node) or not_known(node)", "return serves(node)",
           "tests/unit/test_takedown.py"),
    Mutant("alive: a node that does not answer us serves nobody", "consistency/placement.py",
           "(node.up or node.alive is True)", "node.up", "tests/unit/test_takedown.py"),
    Mutant("alive: a node that may be down serves", "consistency/placement.py",
           "(node.up or node.alive is True)", "(node.up or node.alive is not False)",
           "tests/unit/test_takedown.py"),
    Mutant("alive: a ghost that the node asked never met is alive", "consistency/liveness.py",
           "for node in open_ if node.broadcast in known)", "for node in open_)", "tests/unit/test_liveness.py"),
    Mutant("alive: any refusal at ALL is this node's", "consistency/liveness.py",
           "elif rest == len(open_):", "elif rest:", "tests/unit/test_liveness.py"),
    Mutant("alive: nodes that do not exist count as dead", "consistency/liveness.py",
           "len(replicas) - refusal.alive", "sum(f for _, f in place.replication.factors) - refusal.alive",
           "tests/unit/test_liveness.py"),
    Mutant("alive: the first node that is asked is believed", "consistency/liveness.py",
           "if len(words) == 1 else None", "if words else None", "tests/unit/test_liveness.py"),
    Mutant("alive: a heartbeat that stands still is a sign of life", "consistency/liveness.py",
           '(0, ""))[0] > before', '(0, ""))[0] >= before', "tests/unit/test_liveness.py"),
    Mutant("audit: one that could not judge a node is in order", "consistency/api.py",
           "if self.unknown or not self.keyspaces", "if not self.keyspaces",
           "tests/unit/test_audit.py::test_an_audit_that_could_not_judge_a_node_is_not_complete"),
    Mutant("silence: what wraps an error is taken for it", "consistency/silence.py",
           "yield from _chain(error.__cause__)", "pass", "tests/unit/test_silence.py"),
    Mutant("locality: no trace is needed", "consistency/access.py",
           "if events is not None and proves_local(events, node.broadcast):", "if True:",
           "tests/unit/test_locality.py"),
    Mutant("traced: rows are asked for by key", "consistency/bytoken.py",
           "        text = cql.select_rows_at(reading, token_of(partition))\n"
           "        most = max(MOST_PAGES, len(left))\n"
           "        async with aclosing(self._ask(node, reading, text, (), now_s)) as pages:",
           "        most = max(MOST_PAGES, len(left))\n        some = next(iter(left.values()))\n"
           "        async with aclosing(self._ask(node, reading, cql.select_row(reading), some, now_s)) as pages:"),
    Mutant("traced: a row of a large partition is asked for by its whole key", "consistency/bytoken.py",
           "return await self._only(node, reading, text, key[width:], key[:width], now_s)",
           "return await self._only(node, reading, cql.select_row(reading), key, key[:width], now_s)",
           "tests/unit/test_bytoken.py"),
    Mutant("traced: statics are asked for by key", "consistency/bytoken.py",
           "        text = cql.select_statics_at(reading, token_of(key))\n"
           "        async with aclosing(self._ask(node, reading, text, (), now_s)) as pages:",
           "        async with aclosing(self._ask(node, reading, cql.select_static(reading), key, now_s)) as pages:",
           "tests/unit/test_bytoken.py"),
    Mutant("traced: pages of a range go on from the key of the last one", "consistency/bytoken.py",
           "cut = None if page.paging_state is None else before_last_token(page)", "cut = None",
           "tests/unit/test_bytoken.py"),
    Mutant("traced: a key that stays in a trace is not told of", "consistency/locality.py",
           "bool(statement.values or statement.paging_state)", "bool(statement.values)", "tests/unit/test_bytoken.py"),
    Mutant("settling: nothing is waited for", "consistency/settle.py", "if left > 0:", "if False:"),
    Mutant("settling: what was seen once is claimed", "consistency/settle.py",
           "if outlived is Persistence.PRESENT or absent_windows", "if True or absent_windows"),
    Mutant("settling: a replica that does not answer agrees", "consistency/settle.py",
           "next(iter(unread.values()))) if unread else None", "next(iter(unread.values()))) if False else None",
           f"{PROMISES} tests/unit/test_settle.py"),
    Mutant("settling: rows that wait are forgotten at an interrupt", "consistency/checking.py",
           "self._unsettled[name] + self._settler.waiting_of(name)", "self._unsettled[name]",
           f"{PROMISES} tests/unit/test_scan_memory.py"),
    Mutant("merging: a row whose shared read failed counts as merged", "repair/merging.py",
           "                raise\n            await self._alone(node, evidence)", "                raise",
           "tests/unit/test_merging.py"),
    Mutant("merging: of the rows of one read the first alone is named", "repair/statements.py",
           "[row.name.key[at] for row in rows]", "[row.name.key[at] for row in rows[:1]]",
           "tests/unit/test_merging.py"),
    Mutant("coverage: a replica that failed counts as read", "consistency/leaves.py",
           "completed=digested - lost, skipped", "completed=digested, skipped"),
    Mutant("coverage: a change of the ring is overlooked", "consistency/changes.py",
           "if seen.fingerprint not in known and", "if False and"),
    Mutant("coverage: a change of the table is overlooked", "consistency/changes.py",
           "if found.tables[table.name].fingerprint != table.fingerprint:", "if False:",
           f"{PROMISES} tests/unit/test_scan_memory.py"),
    Mutant("verdict: unsettled rows are consistent", "consistency/verdict.py",
           "if unsettled or not coverage.complete", "if not coverage.complete",
           f"{PROMISES} tests/unit/test_verdict.py"),
    Mutant("verdict: what was not covered is consistent", "consistency/verdict.py",
           "if unsettled or not coverage.complete or", "if unsettled or", f"{PROMISES} tests/unit/test_verdict.py"),
    Mutant("join: rows that only one replica holds are passed over", "consistency/join.py",
           "node: reading.row_state(holders[node].row, now_s, key) if node in holders else None for node in cursors",
           "node: reading.row_state(holders[node].row, now_s, key) for node in holders"),
    Mutant("join: a key in other bytes passes for the same", "consistency/join.py",
           " and c.row[reading.key_slice] == key for c", " for c", "tests/unit/test_join.py"),
    Mutant("digest: a row's weight is a sum, not a product", "consistency/cql.py",
           "{' * '.join(factors)}", "{' + '.join(factors)}", "tests/unit/test_row_weights.py"),
    Mutant("digest: a write time of 0 counts for nothing", "consistency/cql.py",
           "sum({_odd(text)} * {weight})", "sum({text} * {weight})", "tests/unit/test_row_weights.py"),
    Mutant("errors: a full disk is not noticed", "consistency/findings.py",
           'self.error = error.strerror or type(error).__name__', 'self.error = ""',
           "tests/unit/test_findings.py tests/unit/test_cli.py"),
    Mutant("repair: fewer than a quorum decide", "repair/decide.py",
           "if read < max(needed, 1):", "if read < 1:", LAWS),
    Mutant("repair: writes in flight are acted on", "repair/decide.py",
           "newest > evidence.when.in_flight_us(policy.window_s)", "newest > evidence.now_us + 10**15", LAWS),
    Mutant("repair: future write times are acted on", "repair/decide.py",
           "newest > evidence.when.future_us(policy.max_skew_s)", "newest > evidence.now_us + 10**17", LAWS),
    Mutant("repair: one element in two spellings is two", "repair/decide.py",
           "if evidence.respelled:", "if False:", LAWS),
    Mutant("repair: zombies are restored unasked", "repair/decide.py",
           "if policy.zombies is Zombies.QUARANTINE:", "if False:", LAWS),
    Mutant("repair: an old row of a minority is no zombie", "repair/decide.py",
           "atom.writetime < purged_us", "atom.writetime < 0", LAWS),
    Mutant("repair: a suspect without a write time is purged", "repair/decide.py",
           "if not suspects or timeless or", "if", LAWS),
    Mutant("repair: a mask is written back for the value", "repair/decide.py",
           "if any(c.column.masked for c in evidence.columns):", "if False:", LAWS),
    Mutant("repair: counters are written back", "repair/decide.py",
           "if table.is_counter or not evidence.reading.capabilities.timed:", "if False:", LAWS),
    Mutant("clocks: a row is judged by another instant than it was looked at", "consistency/settle.py",
           "await self._sink(Settled(reading.full, name, states, when))",
           "await self._sink(Settled(reading.full, name, states, self._clock.server_time()))", CLOCKS),
    Mutant("clocks: a row in which nothing is wrong is a finding", "consistency/claiming.py",
           "if judgement.facts:", "if True:", CLOCKS),
    Mutant("clocks: a future write is judged by the slowest server", "consistency/servertime.py",
           "return self.latest_us + int(max_skew_s * 1e6)", "return self.earliest_us + int(max_skew_s * 1e6)", CLOCKS),
    Mutant("clocks: a delete is purged by the slowest server", "consistency/servertime.py",
           "self.latest_us + (self.latest_us - self.earliest_us) - gc_grace_s", "self.earliest_us - gc_grace_s",
           CLOCKS),
    Mutant("clocks: deletes are stamped and purged by one clock", "consistency/servertime.py",
           "self.latest_us + (self.latest_us - self.earliest_us) - gc_grace_s", "self.latest_us - gc_grace_s", CLOCKS),
    Mutant("clocks: a write is as old as the fastest server says", "consistency/servertime.py",
           "return self.earliest_us - int(window_s", "return self.latest_us - int(window_s", CLOCKS),
    Mutant("clocks: this machine's clock sets the time", "consistency/clock.py",
           "now_us = time.monotonic_ns() // 1000", "now_us = time.time_ns() // 1000 - 10**12", CLOCKS),
    Mutant("clocks: an undo writes into the future", "repair/undo.py",
           "if ahead_us <= 0:", "if True:", CLOCKS),
    Mutant("clocks: an undo may lose to a delete of the fastest server", "repair/undo.py",
           "_NEVER if entry.by_us is None else entry.by_us", "_NEVER", CLOCKS),
    Mutant("settling: the servers' write timeout is not asked for", "consistency/settling.py",
           "return window_of(timeout_s), \"\"", "return DEFAULT_WINDOW_S, \"\"", CLOCKS),
    Mutant("library: a slow loop does not hold the check back", "consistency/running.py",
           "while len(self._findings) >= _MOST_WAITING:", "while False:", "tests/unit/test_api.py"),
    Mutant("library: leaving a running check does not end it", "consistency/running.py",
           "        self.cancel()\n        if self._thread", "        if self._thread",
           "tests/unit/test_api.py::test_leaving_early_cancels"),
    Mutant("leaks: a hook gets our whole environment", "consistency/hooks.py",
           "env=hook_environment(os.environ, self.passed_on),", "env=None,", "tests/unit/test_hooks.py"),
    Mutant("leaks: a variable passes whose name only begins as one that may", "consistency/hooks.py",
           "_PASSED_ON.fullmatch(n)", "_PASSED_ON.match(n)", "tests/unit/test_hooks.py"),
    Mutant("leaks: a node of the sandbox gets our whole environment", "sandbox/process.py",
           "                env=child_environment(),\n", "", "tests/sandbox/test_process.py"),
    Mutant("leaks: a certificate for any host will do", "consistency/tls.py",
           "check_hostname: bool = True", "check_hostname: bool = False",
           "tests/unit/test_settings.py tests/unit/test_connecting.py"),
    Mutant("leaks: TLS that verifies less is not warned about", "consistency/tls.py",
           "if self.weakness:", "if False:", "tests/unit/test_connecting.py"),
    Mutant("leaks: findings that others may read are read", "consistency/findings.py",
           "    require_unshared(path, path.stat().st_mode)\n", "", "tests/unit/test_private.py"),
    Mutant("leaks: the umask decides who reads a file of keys", "consistency/private.py",
           "os.fchmod(handle, 0o600)", "os.fchmod(handle, os.fstat(handle).st_mode)", "tests/unit/test_private.py"),
    Mutant("leaks: a watch gives up what it cannot read of its own", "consistency/carryover.py",
           "close_to_others(latest)", "latest.exists()", "tests/unit/test_private.py"),
    Mutant("library: a login whose role is unknown counts as none", "consistency/driver.py",
           'getattr(provider, "username", None) or "")', 'getattr(provider, "username", None) or "") or None',
           "tests/unit/test_connecting.py"),
    Mutant("host id: who is behind is entered by address", "consistency/ledger/recorder.py",
           "hosts = {name: view.host_id or name for name, view in views.items()}",
           "hosts = {name: name for name, view in views.items()}",
           f"{HOST_IDS}::test_preflight_knows_the_node_of_the_only_current_copy_wherever_it_answers"),
    Mutant("host id: a stray copy is known by its node's address", "consistency/ledger/recorder.py",
           'row_hash(self._key, finding.key_hex, ",".join(hosts.values()) if stray else "")',
           'row_hash(self._key, finding.key_hex, ",".join(views) if stray else "")',
           f"{HOST_IDS}::test_a_row_is_the_same_row_wherever_its_replicas_answer"),
    Mutant("host id: addresses in a ledger pass for host ids", "consistency/ledger/recorder.py",
           "not all(view.host_id for view in views.values())",
           "False", f"{HOST_IDS}::test_addresses_never_pass_for_host_ids"),
    Mutant("host id: a stray copy from before host ids is new", "consistency/ledger/recorder.py",
           '            db.executemany(_RENAME, [row for row in batch if row["by_address"]])\n',
           "",
           f"{HOST_IDS}::test_a_stray_copy_from_before_host_ids_is_still_there"),
    Mutant("host id: preflight looks for stale copies by address", "consistency/takedown.py",
           "serves(n) and n.host_id in row.replicas]",
           "serves(n) and n.name in row.replicas]",
           f"{HOST_IDS}::test_preflight_knows_the_node_of_the_only_current_copy_wherever_it_answers"),
    Mutant("host id: preflight looks for the current copy by address", "consistency/takedown.py",
           "if unseen and node.host_id not in row.replicas:",
           "if unseen and node.name not in row.replicas:", "tests/unit/test_takedown.py"),
    Mutant("host id: what is known by address alone is a yes", "consistency/takedown.py",
           '            untold[f"{row.keyspace}.{row.table}"] += 1\n',
           "",
           f"{HOST_IDS}::test_what_is_known_by_address_alone_makes_no_yes"),
    Mutant("host id: the migration takes addresses for host ids", "consistency/ledger/migrate.py",
           "SELECT id, names, names <> '' FROM by_name",
           "SELECT id, names, 0 FROM by_name",
           f"{HOST_IDS}::test_what_is_known_by_address_alone_makes_no_yes"),
    Mutant("host id: the migration counts statement by statement", "consistency/ledger/migrate.py",
           '    db.execute("BEGIN IMMEDIATE")\n    try:',
           '    db.execute("BEGIN IMMEDIATE")\n    db.execute("COMMIT")\n    try:',
           f"{HOST_IDS}::test_a_kill_in_the_middle_of_the_migration_leaves_the_old_ledger"),
    Mutant("host id: a stray copy is looked for at its node's address", "consistency/explain.py",
           "if node.host_id in wanted and node not in owners]",
           "if node.name in finding.replicas and node not in owners]",
           f"{HOST_IDS}::test_a_stray_copy_is_looked_for_on_the_node_that_held_it"),
    Mutant("host id: a file without host ids is believed about a stray copy", "consistency/explain.py",
           '    if "" in wanted:',
           "    if False:",
           f"{HOST_IDS}::test_a_stray_copy_is_looked_for_on_the_node_that_held_it"),
    Mutant("host id: a replica that lacks the row has none", "consistency/classify.py",
           "ReplicaView(State.MISSING, host_id=node.host_id)",
           "ReplicaView(State.MISSING)",
           f"{HOST_IDS}::test_every_replica_of_a_finding_has_its_host_id"),
    Mutant("host id: rows carried over keep the addresses of then", "consistency/carryover.py",
           "(names.get(view.host_id, view.host_id), view) for view in replicas.values()",
           "(name, view) for name, view in replicas.items()",
           f"{HOST_IDS}::test_what_a_watch_carries_over_is_told_by_the_addresses_of_now"),
    Mutant("host id: rows of another cluster are carried over", "consistency/carryover.py",
           "elif hosts & names.keys():",
           "else:",
           f"{HOST_IDS}::test_a_watch_carries_nothing_over_from_another_cluster"),
    Mutant("host id: copies in the journal are by address", "repair/outcomes.py",
           "return {node.host_id: state for node",
           "return {node.name: state for node",
           f"{HOST_IDS}::test_a_repair_does_the_same_wherever_its_nodes_answer_by_then"),
    Mutant("host id: what a plan saw is by address", "repair/evidence.py",
           "return {node.host_id: state_digest(state, salt) for node",
           "return {node.name: state_digest(state, salt) for node",
           f"{HOST_IDS}::test_a_repair_does_the_same_wherever_its_nodes_answer_by_then"),
    Mutant("host id: a ring changes with an address", "consistency/ring.py",
           'f"{n.host_id} {n.dc} {n.rack} {',
           'f"{n.host_id} {n.name} {n.dc} {n.rack} {',
           f"{HOST_IDS}::test_a_repair_does_the_same_wherever_its_nodes_answer_by_then"),
    Mutant("host id: whoever waits for a node waits for its address", "consistency/takedown_facts.py",
           "        node = found.host_id", "        node = found.name",
           f"{HOST_IDS}::test_whoever_waits_for_a_node_waits_for_that_node"),
    Mutant("cluster: any node in common is enough", "consistency/identity.py",
           "best = max(shared, key=lambda key: shared[key], default=None)",
           "best = next((key for key in shared if shared[key]), None)",
           f"{HOST_IDS}::test_a_cluster_is_the_one_that_shares_most_nodes"),
    Mutant("cluster: nodes that left count as those that are there", "consistency/ledger/clusters.py",
           "        if here:\n",
           "        if True:\n",
           f"{HOST_IDS}::test_a_cluster_is_known_by_the_nodes_it_has_before_those_it_had"),
    Mutant("cluster: its id is made anew with its nodes", "consistency/recording.py",
           'return (recorder.cluster_id if recorder is not None else "") or ring.cluster_id',
           "return ring.cluster_id",
           f"{HOST_IDS}::test_the_clusters_id_is_in_report_and_metrics_and_stays_with_a_ledger"),
    Mutant("cluster: history shows the newest of a name alone", "consistency/history.py",
           "return replace(first, others=tuple(others))",
           "return first",
           f"{HOST_IDS}::test_of_two_clusters_of_one_name_the_overdue_one_is_shown_first"),
    Mutant("cluster: history shows another than the worst first", "consistency/history.py",
           "sorted(having, key=_worst_first)",
           "sorted(having, key=_worst_first, reverse=True)",
           f"{HOST_IDS}::test_of_two_clusters_of_one_name_the_overdue_one_is_shown_first"),
    Mutant("lock: a holder on this cluster passes for one on another", "consistency/lock.py",
           "or ring.host_ids.intersection(map(str, hosts)):",
           "or ring.host_ids == set(map(str, hosts)):", "tests/unit/test_cli_ledger.py"),
    Mutant("lock: a holder that names no nodes is on another cluster", "consistency/lock.py",
           "if not isinstance(hosts, list) or ring",
           "if isinstance(hosts, list) and ring", "tests/unit/test_cli_ledger.py"),
    Mutant("lock: the first free file is taken unseen", "consistency/lock.py",
           "if free is not None and not path.exists():",
           "if free is not None:", "tests/unit/test_cli_ledger.py"),
)  # fmt: skip


def main() -> int:
    """Try every mutant whose description holds the word given; 1 where one survives."""
    word = " ".join(sys.argv[1:])
    chosen = [mutant for mutant in MUTANTS if word in mutant.what]
    started = time.monotonic()
    survivors = [mutant.what for mutant in chosen if not _killed(mutant)]
    print(f"{len(chosen)} mutants, {len(survivors)} not caught, {time.monotonic() - started:.0f} s")
    return 1 if survivors or not chosen else 0


def _killed(mutant: Mutant) -> bool:
    source = (ROOT / mutant.place).read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        print(f"LOST      {mutant.what}: its text is in {mutant.place} {source.count(mutant.old)} times, not once")
        return False
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory)
        for name in ("consistency", "repair", "sandbox", "tests"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        (tree / mutant.place).write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests.split()],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree), "CONSISTENCY_SEEDS": "600", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    # 1: a test failed. Anything else (nothing collected, a usage error) proves nothing.
    caught = done.returncode == 1 and " failed" in done.stdout
    print(f"{'caught' if caught else 'SURVIVED':9} {mutant.what} ({time.monotonic() - started:.0f} s)", flush=True)
    if done.returncode not in (0, 1):
        print(done.stdout[-2000:] + done.stderr[-2000:])
    return caught


if __name__ == "__main__":
    sys.exit(main())
