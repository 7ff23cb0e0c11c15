"""`cachemw static build`: the static files of a site under hashed names, for production."""

from __future__ import annotations

import click

from cachemw._busting.build import Built, build
from cachemw._busting.folder import MANIFEST
from cachemw._busting.twins import COMPRESSIONS

__all__ = ["static"]


@click.group()
def static() -> None:
    """Prepare static files for production."""


@static.command("build")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("--to", "target", metavar="DIR", required=True, help="The folder to write to; made if it does not exist.")
@click.option("--url", metavar="URL", default="/static/", show_default=True, help="The URL of DIR on the site.")
@click.option("--compress", metavar="CODINGS", help=f"Some of {','.join(COMPRESSIONS)}; left out: all installed.")
@click.option("--missing-ok", is_flag=True, help="Build despite problems; such references stay as they are.")
def build_command(sources: tuple[str, ...], target: str, url: str, compress: str | None, missing_ok: bool) -> None:
    """Write the files of the SOURCE folders to DIR, each also under a name that has the hash of its content.

    References between them (url(...), @import, source maps, imports of modules) are rewritten in the hashed files, a
    manifest tells the names to cachemw, and what is worth it is compressed. Files of earlier builds stay.
    """
    codings = None if compress is None else [word for word in compress.replace(" ", "").split(",") if word]
    built = build(sources, target, url=url, compress=codings, missing_ok=missing_ok)
    for problem in built.problems:
        click.echo(str(problem), err=True)
    if built.problems and not missing_ok:
        raise click.ClickException(
            f"problems: {len(built.problems)}; nothing was written. --missing-ok leaves out what they name."
        )
    _report(built, target)


def _report(built: Built, target: str) -> None:
    files = "1 file" if len(built.files) == 1 else f"{len(built.files)} files"
    click.echo(f"{files}, {built.rewritten} of them rewritten: {target}/{MANIFEST}")
    for coding, (before, after) in built.sizes.items():
        if before:
            click.echo(f"{coding:>5} {before:>11,} -> {after:,} bytes ({100 * after / before:.0f} %)")
