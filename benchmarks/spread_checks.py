"""How much faster two workers are than one process where the client is the limit, for whole commands.

python -m benchmarks.spread_checks [--rows N] [--rounds N] [--dir DIR] [--address-base A]

A real cluster is loaded and checked once through a recorder (benchmarks/recorded.py), then stopped: from there on the
nodes answer from the record. Then `check --route client` runs by turns, by itself and with --workers 2. The commands
run with compiled modules, as they are for whoever has installed the package.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bed import Bed, Shape
from benchmarks.recorded import Recorder, keep, replay
from benchmarks.rounds import Sample, alternate, command, ratio

PORT = 19_042
ALONE, TWO = "one process", "--workers 2"


def main() -> None:
    """Record unless there is a record, then measure."""
    if sys.argv[1:2] == ["replay"]:
        asyncio.run(replay(Path(sys.argv[2]), PORT))
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spread_checks", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows on each of three replicas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="keep cluster and record here, and reuse what is there")
    parser.add_argument("--address-base", default="127.0.40.1", help="address of the first node")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="consistency-bench-") as temporary:
        folder = (given.dir or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        bed, shape = Bed(folder / "sandbox", given.address_base), Shape("small", given.rows)
        record = folder / f"record-{given.rows}"
        config = _config(given.address_base, folder)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
        if not record.exists():
            _record(bed, shape, config, record)
        with _replayed(record):
            sides = {
                ALONE: lambda: _check(shape, config),
                TWO: lambda: _check(shape, config, "--workers", "2"),
            }
            figures = alternate(sides, given.rounds)
    print(f"3 x {given.rows:,} rows")
    for name, samples in figures.items():
        walls = sorted(sample.wall_s for sample in samples)
        used = sorted(sample.cpu_s for sample in samples)
        print(f"{name}: {walls[len(walls) // 2]:.2f} s ({walls[0]:.2f} to {walls[-1]:.2f})", end=", ")
        print(f"processor {used[len(used) // 2]:.2f} s")
    print(f"times as fast: {ratio(figures[ALONE], figures[TWO])}")


def _config(address_base: str, folder: Path) -> Path:
    """Write where nodes are reached: at their addresses, at our port."""
    path = folder / "consistency.toml"
    first = ipaddress.ip_address(address_base)
    addresses = [str(first + n) for n in range(3)]
    places = "".join(f'"{address}" = "{address}:{PORT}"\n' for address in addresses)
    hosts = ",".join(f"{address}:{PORT}" for address in addresses)
    path.write_text(f'[connection]\nhosts = "{hosts}"\n\n[connection.addresses]\n{places}', encoding="utf-8")
    path.chmod(0o600)
    return path


def _check(shape: Shape, config: Path, *options: str) -> Sample:
    words = [sys.executable, "-m", "consistency", "check", shape.full_name, "--route", "client", "--depth", "content"]
    return command([*words, "--full-speed", "--quiet", "--config", str(config), *options])


def _record(bed: Bed, shape: Shape, config: Path, path: Path) -> None:
    """Write down what the nodes answer to one check by one process and to one with workers."""
    with bed.sandbox:
        bed.ensure(shape)
        recorder = Recorder({node.address: node.port for node in bed.sandbox.nodes}, PORT)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        asyncio.run_coroutine_threadsafe(recorder.start(), loop).result()
        _check(shape, config)
        _check(shape, config, "--workers", "2")
        asyncio.run_coroutine_threadsafe(recorder.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    keep(recorder.record, path)


@contextmanager
def _replayed(record: Path) -> Iterator[None]:
    words: Sequence[str] = (sys.executable, "-m", "benchmarks.spread_checks", "replay", str(record))
    running = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        if running.stdout.readline().strip() != "ready":
            raise RuntimeError("the record cannot be played")
        threading.Thread(target=lambda: [print(line, end="") for line in running.stdout or ()], daemon=True).start()
        yield
    finally:
        running.terminate()
        running.wait()


if __name__ == "__main__":
    main()
