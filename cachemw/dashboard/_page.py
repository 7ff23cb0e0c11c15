"""The page: figures, stores and the form as HTML. Pure; `Markup.format` escapes whatever is put into it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from markupsafe import Markup

from cachemw._observing.outcomes import ANSWERED, LOOKUPS
from cachemw.dashboard._form import Form, Told
from cachemw.dashboard._stores import State
from cachemw.dashboard._style import STYLE
from cachemw.observing import OUTCOMES, Figures, Minute, Snapshot

__all__ = ["page"]

_NOW: Final = 5  # minutes
_REASONS: Final = 8  # that are shown of an outcome
_STYLE: Final = Markup("<style>{}</style>").format(Markup(STYLE))  # noqa: S704  ours

_PAGE: Final = Markup("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
{style}
</head>
<body>
<main>
<header>
<h1>{title}</h1>
<p class="quiet">Process {process}, counting for {age} &middot; <a href="">reload</a></p>
</header>
{told}
<div class="cards">
{ratios}
{chart}
{outcomes}
{times}
{stores}
{form}
</div>
</main>
</body>
</html>
""")


def page(
    title: str,
    snapshot: Snapshot,
    stores: Sequence[State],
    *,
    token: str,
    example: str,
    process: int,
    told: Told | None = None,
    form: Form | None = None,
) -> str:
    """The whole page. told: what came of the form; form: what it is filled in with; example: a URL of this site."""
    return _PAGE.format(
        title=title,
        style=_STYLE,
        process=process,
        age=_span(time.time() - snapshot.since),
        told=_told(told),
        ratios=_ratios(snapshot),
        chart=_chart(snapshot.minutes),
        outcomes=_outcomes(snapshot),
        times=_times(snapshot),
        stores=_stores(stores),
        form=_form(token, example, form or Form()),
    )


def _joined(parts: Iterable[str]) -> Markup:
    return Markup("\n").join(parts)


# -- numbers ----------------------------------------------------------------------------------------------------------


def _count(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _percent(ratio: float | None) -> str:
    """Never 100 % where it is less."""
    if ratio is None:
        return "\u2013"
    return f"{min(ratio, 1.0 if ratio == 1 else 0.999) * 100:.{0 if ratio in (0, 1) else 1}f}\u202f%"


def _octets(number: int) -> str:
    amount, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.{0 if unit == 'B' or amount >= 100 else 1}f}\u202f{unit}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "\u2013"
    factor, unit = (1e6, "\u00b5s") if seconds < 1e-3 else (1e3, "ms") if seconds < 1 else (1.0, "s")
    amount = seconds * factor
    return f"{amount:.{2 if amount < 10 else 1 if amount < 100 else 0}f}\u202f{unit}"


def _span(seconds: float) -> str:
    minutes = max(0, int(seconds)) // 60
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


# -- parts ------------------------------------------------------------------------------------------------------------


def _told(told: Told | None) -> Markup:
    if told is None:
        return Markup()
    return Markup('<p class="told {}" role="status">{}</p>').format("ok" if told.status == 200 else "bad", told.text)


_RATIO: Final = Markup("""\
<section class="third"><h2>{}</h2><p class="figure">{}</p><p class="quiet">{}</p></section>""")


def _ratios(snapshot: Snapshot) -> Markup:
    hour, now = snapshot.minutes, snapshot.minutes[-_NOW:]
    shown = [
        (f"Hit ratio, last {_NOW} minutes", sum(one.hits for one in now), sum(one.lookups for one in now)),
        ("Hit ratio, last hour", sum(one.hits for one in hour), sum(one.lookups for one in hour)),
        ("Hit ratio, since the start", snapshot.figures(*ANSWERED).requests, snapshot.figures(*LOOKUPS).requests),
    ]
    return _joined(
        _RATIO.format(name, _percent(hits / total if total else None), f"{_count(hits)} of {_count(total)} look-ups")
        for name, hits, total in shown
    )


_CHART: Final = Markup("""\
<section>
<h2 id="chart">Requests by minute</h2>
<svg class="chart" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" aria-labelledby="chart summary">
{bars}
</svg>
<p class="axis quiet"><span>60 minutes ago</span><span>most: {most} a minute</span><span>now</span></p>
<ul class="key quiet" aria-hidden="true">
<li><svg viewBox="0 0 1 1"><rect class="hit" width="1" height="1"/></svg>from the cache</li>
<li><svg viewBox="0 0 1 1"><rect class="other" width="1" height="1"/></svg>from the application</li>
</ul>
<p class="quiet" id="summary">{total} requests in the last hour, {hits} of them answered from the cache.</p>
</section>""")
_BAR: Final = Markup("""\
<g><title>{}</title><rect class="other" x="{}" y="{}" width="{}" height="{}"/>\
<rect class="hit" x="{}" y="{}" width="{}" height="{}"/></g>""")
_WIDE, _HIGH, _STEP, _BAR_WIDE = 600, 100, 10, 7


def _chart(minutes: Sequence[Minute]) -> Markup:
    most = max(one.requests for one in minutes)
    base = Markup('<rect class="track" y="{}" width="{}" height="0.5"/>').format(_HIGH - 0.5, _WIDE)
    return _CHART.format(
        width=_WIDE,
        height=_HIGH,
        bars=_joined([base, *_bars(minutes, most)]),
        most=_count(most),
        total=_count(sum(one.requests for one in minutes)),
        hits=_count(sum(one.hits for one in minutes)),
    )


def _bars(minutes: Sequence[Minute], most: int) -> Iterator[Markup]:
    for number, one in enumerate(minutes):
        if one.requests:
            x = number * _STEP + (_STEP - _BAR_WIDE) / 2
            high, hits = (round(_HIGH * count / most, 2) for count in (one.requests, one.hits))
            ago = len(minutes) - 1 - number
            when = f"{ago} min ago" if ago else "this minute"
            says = f"{when}: {_count(one.requests)} requests, {_count(one.hits)} from the cache"
            rest = round(high - hits, 2)
            yield _BAR.format(says, x, round(_HIGH - high, 2), _BAR_WIDE, rest, x, _HIGH - hits, _BAR_WIDE, hits)


_TABLE: Final = Markup("""\
<section class="{kind}">
<h2>{name}</h2>
<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
{note}
</section>""")


def _table(name: str, columns: Sequence[str], rows: Iterable[str], *, kind: str = "", note: str = "") -> Markup:
    """columns: their names; those that begin with # are of numbers, and one of a picture has none."""
    cells = [
        Markup('<th scope="col" class="{}">{}</th>').format("number" if one.startswith("#") else "", one.lstrip("#"))
        if one
        else Markup('<td class="share"></td>')
        for one in columns
    ]
    quiet = Markup('<p class="quiet">{}</p>').format(note) if note else Markup()
    return _TABLE.format(kind=kind, name=name, head=Markup().join(cells), rows=_joined(rows), note=quiet)


_OUTCOME: Final = Markup("""\
<tr><th scope="row"><span class="outcome">{name}</span> <span class="means">{means}</span>{reasons}</th>
<td class="share"><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
<rect class="track" width="100" height="8"/><rect class="{kind}" width="{share}" height="8"/></svg></td>
<td class="number">{percent}</td><td class="number">{count}</td><td class="number">{octets}</td></tr>""")


def _outcomes(snapshot: Snapshot) -> Markup:
    """By outcome, the most frequent ones first, each with the reasons that were given."""
    total = snapshot.requests
    rows = sorted(snapshot.outcomes, key=lambda name: -snapshot.outcomes[name])
    columns = ["Outcome", "", "#share", "#requests", "#sent"]
    note = "" if total else "No request has come yet."
    return _table("Requests by outcome", columns, (_outcome(snapshot, name, total) for name in rows), note=note)


def _outcome(snapshot: Snapshot, name: str, total: int) -> Markup:
    one = snapshot.figures(name)
    parts = sorted(
        ((series.requests, told.cache, told.reason) for told, series in snapshot.series.items() if told.name == name),
        reverse=True,
    )
    several = len({outcome.cache for outcome in snapshot.series if outcome.cache}) > 1
    said = [
        f"{': '.join(word for word in (cache if several else '', reason) if word)} {_count(count)}"
        for count, cache, reason in parts
        if reason or (several and cache)
    ]
    reasons = Markup('<span class="reasons">{}</span>').format(" \u00b7 ".join(said[:_REASONS])) if said else ""
    return _OUTCOME.format(
        name=name,
        means=OUTCOMES[name],
        reasons=reasons,
        kind="hit" if name in ANSWERED else "other",
        share=round(100 * one.requests / total, 1),
        percent=_percent(one.requests / total),
        count=_count(one.requests),
        octets=_octets(one.octets),
    )


def _times(snapshot: Snapshot) -> Markup:
    rows = [("from the cache", snapshot.hits), ("from the application", snapshot.misses)]
    return _table(
        "Time until a response begins",
        ["Responses", "#mean", "#median", "#95\u202f%", "#99\u202f%"],
        (_time(name, figures) for name, figures in rows),
    )


def _time(name: str, figures: Figures) -> Markup:
    shown = [figures.mean, *map(figures.percentile, (50, 95, 99))]
    cells = Markup().join(Markup('<td class="number">{}</td>').format(_seconds(one)) for one in shown)
    return Markup('<tr><th scope="row">{}</th>{}</tr>').format(name, cells)


_STORE: Final = Markup("""\
<tr><th scope="row">{} <span class="means">{}</span><span class="reasons">{}</span></th>
<td class="number">{}</td><td class="number">{}</td></tr>""")


def _stores(stores: Sequence[State]) -> Markup:
    rows = (
        _STORE.format(
            one.kind,
            one.place,
            Markup(" ").join(_state(one)),
            "\u2013" if one.entries is None else _count(one.entries),
            "\u2013" if one.octets is None else _octets(one.octets),
        )
        for one in stores
    )
    note = "" if all(one.entries is not None for one in stores) else "Only local memory knows how much it holds."
    return _table("Stores", ["Store", "#entries", "#size"], rows, kind="half", note=note)


def _state(store: State) -> Iterator[Markup]:
    """What is wrong, in words and not in colour alone; or that nothing is."""
    wrong = [
        f"{what} fails since {time.strftime('%H:%M:%S', time.gmtime(since))} UTC ({_span(time.time() - since)})"
        for what, since in (("reading", store.reading_since), ("writing", store.writing_since))
        if since is not None
    ]
    if store.owes:
        wrong.append("a purge waits until it answers")
    if wrong:
        yield Markup('<span class="state bad">{}</span>').format("; ".join(wrong))
    else:
        yield Markup('<span class="state ok">works</span>')
    if store.failures:
        counted = " \u00b7 ".join(f"{reason} {_count(count)}" for reason, count in sorted(store.failures.items()))
        yield Markup("<br>failures so far: {}").format(counted)


_FORM: Final = Markup("""\
<section class="half">
<h2>Purge</h2>
<form method="post" action="">
<input type="hidden" name="token" value="{token}">
<label for="url">URL</label>
<input type="text" id="url" name="url" value="{url}" placeholder="{example}" inputmode="url" autocomplete="off" \
autocapitalize="none" spellcheck="false">
<label for="tag">or tag</label>
<input type="text" id="tag" name="tag" value="{tag}" autocomplete="off" autocapitalize="none" spellcheck="false">
<fieldset>
<legend>How</legend>
<label><input type="radio" name="how" value="hard"{hard}> remove the pages</label>
<label><input type="radio" name="how" value="soft"{soft}> make them stale: validated, or shown for a last time</label>
</fieldset>
<button>Purge</button>
</form>
</section>""")


def _form(token: str, example: str, form: Form) -> Markup:
    checked = Markup(" checked")
    hard, soft = (Markup(), checked) if form.soft else (checked, Markup())
    return _FORM.format(token=token, example=example, url=form.url, tag=form.tag, hard=hard, soft=soft)
