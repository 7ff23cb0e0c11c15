"""`python -m benchmarks [pages|stores|serve|memory|stampede]… [--quick]`: every section without a name."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from benchmarks import pages, plot
from benchmarks.report import write
from benchmarks.surroundings import chosen, stores

SECTIONS: Final = ("pages",)


def run_pages(options: argparse.Namespace) -> None:
    kinds = "s" if options.quick else "sml"
    rounds = options.rounds or (7 if options.quick else 25)
    with stores() as servers:
        found = pages.measure(chosen(options.only), servers, rounds=rounds, kinds=kinds)
    raw = {name: {f"{what} {kind}": times for (what, kind), times in by.items()} for name, by in found.times.items()}
    write("pages", pages.table(found), pages.goals(found), found.missing, raw)
    plot.pages(found)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("section", nargs="*", choices=[*SECTIONS, []], help="default: all")
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter rounds, small bodies: under two minutes"
    )
    parser.add_argument("--only", metavar="PARTS", help="subjects whose name contains one of these, comma-separated")
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args(argv)
    for section in options.section or SECTIONS:
        globals()[f"run_{section}"](options)


if __name__ == "__main__":
    main(sys.argv[1:])
