"""`python -m benchmarks [pages|stores|serve|stampede|memory|profile]… [--quick]`.

Without a section: all but `profile`, which shows where our own microseconds go.
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

from benchmarks import memory, pages, plot, serve, stampede
from benchmarks import stores as low_level
from benchmarks.report import write
from benchmarks.surroundings import MissingSubjectError, Worker, chosen, stores

SECTIONS: Final = ("pages", "stores", "serve", "stampede", "memory")


#: Over sockets and in a stampede every subject costs seconds: these alone, where it is to be quick.
QUICK: Final = "bare,cachemw-asgi-locmem,cachemw-wsgi-locmem,cachemw-asgi-redis,asgi-caches,flask-caching-locmem"


def run_pages(options: argparse.Namespace) -> None:
    kinds = "s" if options.quick else "sml"
    rounds = options.rounds or (5 if options.quick else 25)
    with stores() as servers:
        found = pages.measure(chosen(options.only), servers, rounds=rounds, kinds=kinds)
    raw = {name: {f"{what} {kind}": times for (what, kind), times in by.items()} for name, by in found.times.items()}
    write("pages", pages.table(found), pages.goals(found), found.missing, raw)
    plot.pages(found)


def run_stores(options: argparse.Namespace) -> None:
    with stores() as servers:
        found, missing = low_level.measure(
            servers, rounds=options.rounds or (3 if options.quick else 25), only=options.only
        )
    write("stores", low_level.table(found), low_level.goals(found), missing, found)


def run_serve(options: argparse.Namespace) -> None:
    names = [subject.name for subject in chosen(options.only or (QUICK if options.quick else None))]
    rounds = options.rounds or (2 if options.quick else 5)
    with stores() as servers:
        found = serve.measure(names, servers, rounds=rounds, seconds=1, kinds="s" if options.quick else "sm")
    raw = {f"{name} {kind}": rates for (name, kind), rates in found.rates.items()}
    write("serve", serve.table(found), serve.goals(found), found.missing, raw)


def run_stampede(options: argparse.Namespace) -> None:
    with stores() as servers:
        found, missing = stampede.measure(
            chosen(options.only or (QUICK if options.quick else None)), servers, runs=1 if options.quick else 3
        )
    write("stampede", stampede.table(found), stampede.goals(found), missing, found)


def run_memory(options: argparse.Namespace) -> None:
    with stores() as servers:
        found, missing = memory.measure(servers, pages=10_000 if options.quick else 50_000)
    write("memory", memory.table(found), memory.goals(found), missing, found)


def run_profile(options: argparse.Namespace) -> None:
    with stores() as servers:
        for subject in chosen(options.only or "cachemw-asgi-locmem,cachemw-wsgi-locmem"):
            for operation, requests in (("hit", 50_000), ("not_modified", 20_000), ("miss", 5_000)):
                with Worker(subject, servers) as worker:
                    try:
                        report = worker.ask("profile", kind="s", requests=requests, operation=operation)
                    except MissingSubjectError as reason:
                        report = str(reason)
                print(f"\n{subject.name}, {operation}: {report}")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("section", nargs="*", choices=[*SECTIONS, "profile", []], help="default: all")
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
