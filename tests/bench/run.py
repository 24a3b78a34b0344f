"""`make bench`: everything measured in one run, written to docs/benchmarks.md and .json.

    python tests/bench/run.py --work .cache/bench --out docs/benchmarks.md [--only kernels,minilm,small,graphs,text] [--quick]
    python tests/bench/run.py --work .cache/bench --check tests/bench/counts.json [--update]

--only measures these parts and keeps the others of the report that is there; all: limits, kernels, attention, counts, minilm,
accuracy (with --pairs), small, graphs, threads, text.  --check compares instructions with a recorded list instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "bench")]

import attention  # noqa: E402
import graphs  # noqa: E402
import machine  # noqa: E402
import minilm  # noqa: E402
import page  # noqa: E402
import small  # noqa: E402
import threads  # noqa: E402

import frugal  # noqa: E402
import kernels  # noqa: E402
import text  # noqa: E402

TOLERANCE = 0.03


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".cache/bench"), help="folder for models")
    parser.add_argument("--out", type=Path, help="Markdown file to write; JSON goes beside it")
    parser.add_argument("--only", default="", help="parts to measure, with commas between")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="5 rounds")
    parser.add_argument("--pairs", nargs="*", default=[], help="CSV files of sentence1, sentence2, score, for accuracy")
    parser.add_argument("--every", type=int, default=1, help="take every n-th pair")
    parser.add_argument("--check", type=Path, help="compare instruction counts with this file")
    parser.add_argument("--update", action="store_true", help="write that file anew instead")
    args = parser.parse_args()
    args.rounds = 5 if args.quick else max(args.rounds, 5)
    unknown = set(filter(None, args.only.split(","))) - set(page.SECTIONS)
    if unknown:
        parser.error(f"--only knows {', '.join(page.SECTIONS)}; got {', '.join(sorted(unknown))}")
    return args


def measure_part(name: str, args: argparse.Namespace, report: dict[str, Any]) -> Any:
    work, rounds = args.work, args.rounds
    if name == "limits":
        return machine.limits(rounds)
    if name == "kernels":
        return kernels.measure(rounds)
    if name == "attention":
        return attention.measure(rounds)
    if name == "counts":
        return kernels.counts(work)
    if name == "minilm":
        return minilm.measure(work, rounds)
    if name == "accuracy":
        return minilm.accuracy(minilm.prepare(work), args.pairs, args.every)
    if name == "small":
        return small.measure(work, rounds)
    if name == "graphs":
        return graphs.measure(work, rounds)
    if name == "threads":
        return threads.measure(work, rounds)
    return text.measure(work, min(rounds, 5), report["limits"], frugal.isa())


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The report: what was there, with the parts asked for measured anew; limits always are."""
    old = args.out.with_suffix(".json") if args.out else None
    report: dict[str, Any] = json.loads(old.read_text(encoding="utf-8")) if old and old.exists() else {}
    if "about" not in report or not args.only:
        report = {k: v for k, v in report.items() if k == "accuracy" or k == "measured"}
    report.setdefault("measured", {})
    options = " ".join(([f"--only {args.only}"] if args.only else []) + (["--quick"] if args.quick else []))
    about = machine.about() | {"rounds": args.rounds, "command": "make bench" + (f" BENCH_ARGS='{options}'" if options else "")}
    report["about"] = about
    wanted = set(filter(None, args.only.split(","))) or set(page.SECTIONS)
    for name in page.SECTIONS:
        if (name not in wanted and name != "limits") or (name == "accuracy" and not args.pairs):
            continue
        start = time.monotonic()
        report[name] = measure_part(name, args, report)
        report["measured"][name] = {k: about[k] for k in page.CONDITIONS}
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        if args.out:
            write(report, args.out)
    return report


def write(report: dict[str, Any], out: Path) -> None:
    """The page and its JSON; after every part, so that what was measured is not lost."""
    out.write_text(page.markdown(report), encoding="utf-8")
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def check(args: argparse.Namespace) -> int:
    """0 unless a kernel takes more instructions than recorded; other compilers than the recorded one are not compared."""
    now = kernels.counts(args.work)
    if "reason" in now:
        print(f"skipped: instruction counts ({now['reason']})")
        return 0
    if args.update:
        args.check.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        return 0
    before = json.loads(args.check.read_text(encoding="utf-8"))
    if (now["compiler"], now["isa"]) != (before["compiler"], before["isa"]):
        was, here = (f"{c['compiler']}, {c['isa']}" for c in (before, now))
        print(f"skipped: instruction counts (recorded with {was}; here is {here}: other code is made)")
        return 0
    worse = kernels.regressions(now, before, TOLERANCE)
    for line in worse:
        print(f"slower: {line}")
    print(
        f"instruction counts: {len(now['counts']) - len(worse)} as recorded or less, {len(worse)} more than {TOLERANCE:.0%} worse"
    )
    return 1 if worse else 0


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.check:
        sys.exit(check(args))
    report = measure(args)
    if not args.out:
        print(page.markdown(report))


if __name__ == "__main__":
    main()
