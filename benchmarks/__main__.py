"""Measure the tool on a real cluster of three nodes, and render docs/benchmarks.md.

python -m benchmarks                                   everything, about two hours on two processors
python -m benchmarks speed repair --rounds 5           two suites
python -m benchmarks --rows 100000 --large-rows 20000  smaller tables
python -m benchmarks --page-only                       only render the page, from the last figures
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections import defaultdict
from pathlib import Path

import psutil

from benchmarks.bed import Bed
from benchmarks.page import read_raw, render, table, write_raw
from benchmarks.suites import SUITES, Row, Sizes
from sandbox import SandboxOptions

_FIGURES = Path("docs/benchmarks/figures.json")


def main() -> None:
    """Run the suites, keep every figure, print the tables and render the page."""
    options = _arguments()
    if not options.page_only:
        _measure(options)
    if options.json == _FIGURES or options.page_only:
        render(*read_raw(options.json))


def _arguments() -> argparse.Namespace:
    sizes = Sizes()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"which ones: {', '.join(SUITES)}; default: all")
    parser.add_argument("--rows", type=int, default=sizes.rows, help="rows of about 100 bytes on each replica")
    parser.add_argument("--large-rows", type=int, default=sizes.large_rows, help="rows of about 2,000 bytes")
    parser.add_argument("--growth", type=_numbers, default=sizes.growth, help="sizes, separated by commas")
    parser.add_argument("--divergent", type=_numbers, default=sizes.divergent, help="divergent rows, with commas")
    parser.add_argument("--findings", type=int, default=sizes.findings, help="the most divergent rows")
    parser.add_argument("--rounds", type=int, default=sizes.rounds, help="how many rounds each side runs")
    parser.add_argument("--seconds", type=float, default=sizes.seconds, help="how long each foreground load lasts")
    parser.add_argument("--dir", type=Path, help="keep the cluster and its data here, and reuse existing data")
    parser.add_argument("--address-base", default="127.0.40.1", help="address of the first node")
    parser.add_argument(
        "--json", type=Path, default=_FIGURES, help="the raw figures; the page is rendered from its own"
    )
    parser.add_argument("--page-only", action="store_true", help="measure nothing, only render the page")
    options = parser.parse_args()
    unknown = [name for name in options.suites if name not in SUITES]
    if unknown:
        parser.error(f"no suite {unknown[0]!r}; there are {', '.join(SUITES)}")
    return options


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part.replace("_", "")) for part in text.split(","))


def _measure(options: argparse.Namespace) -> None:
    sizes = Sizes(
        rows=options.rows,
        large_rows=options.large_rows,
        growth=options.growth,
        divergent=options.divergent,
        findings=options.findings,
        rounds=options.rounds,
        seconds=options.seconds,
    )
    chosen = [name for name in SUITES if name in (options.suites or SUITES)]
    with tempfile.TemporaryDirectory(prefix="consistency-bench-") as temporary:
        base = (options.dir or Path(temporary)).absolute()
        plain = Bed(base / "sandbox", options.address_base)
        beds = [(plain, [name for name in chosen if name not in {"planning", "older"}])]
        if "vnodes" in chosen:
            beds.append((Bed(base / "vnodes", options.address_base, num_tokens=256), ["vnodes"]))
        if "older" in chosen:
            beds.append((Bed(base / "older", options.address_base, cassandra="4.1"), ["older"]))
        done: dict[str, list[Row]] = defaultdict(list)
        if "planning" in chosen:
            _run(plain, ["planning"], sizes, options.json, done)
        for bed, suites in beds:
            if suites:
                with bed.sandbox:
                    _run(bed, suites, sizes, options.json, done)


def _run(bed: Bed, suites: list[str], sizes: Sizes, path: Path, done: dict[str, list[Row]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in suites:
        for row in SUITES[name](bed, sizes):
            done[name].append(row)
            print("\n".join(table(row)), flush=True)
            write_raw(path, done[name], _machine())


def _machine() -> dict[str, object]:
    return {
        "processors": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "cassandra": SandboxOptions().version.release,
    }


if __name__ == "__main__":
    main()
