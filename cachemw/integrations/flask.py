"""Flask: the cache around an application, around blueprints and views, with its settings in `app.config`.

    site_cache = CacheMW(app)                           the whole site
    site_cache.blueprint(blog, timeout=900)             the pages of a blueprint, with another lifetime
    @cache_page(60)                                     a view (`cachemw.cache_page`)
    site_cache.purge(url_for("blog.entry", id=7))       when something has changed

`app.config` may have the names of Django's settings (CACHES, CACHE_MIDDLEWARE_ALIAS, …) and those of the environment
(CACHEMW_SECONDS, …); it comes before the environment. `flask cachemw` has the commands of `cachemw`. Templates have the
tag `{% cache 500 sidebar %}`; `url_for("static", filename=…)` adds the version of the file (`cachemw.busting`).

By default a page is looked up before Flask, which is fastest. Flask's before functions then do not run for hits, as
behind any cache in front of a site. A page for some visitors only has to vary on the fields that identify them; a page
that reads the session does so by itself.

With `inside=True` pages are looked up after all before functions of the application and its blueprints, so these also
guard stored pages. This is the default if language or time zone is part of the key (USE_I18N, USE_TZ): they are chosen
in before functions, or by Flask-Babel, which works only inside of Flask. If Flask-Babel chooses them for each request,
they are part of the key unless the settings say no.

Rule 1: a look-up inside of Flask is the last step before the view: what guards the view guards the stored page.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import click
from flask import Blueprint, Flask, current_app, has_app_context, request

from cachemw import purging, wsgi
from cachemw._busting.frameworks import FlaskVersions
from cachemw._forks import Forkable
from cachemw._values import boolean
from cachemw._views.kinds import PAGE
from cachemw._views.page import EXCHANGE, Page, Tags
from cachemw._views.wsgi import FLASK_EXTENSION, make_inner_half, make_middleware, respond
from cachemw._wsgi.noticed import COOKIES_WATCHED
from cachemw.backends.base import BaseCache
from cachemw.backends.registry import Caches
from cachemw.caching import Caching, Options, with_cookies_of
from cachemw.errors import ImproperlyConfigured
from cachemw.fragments import CacheExtension
from cachemw.hooks import Hooks
from cachemw.integrations._flask_settings import BY_BABEL, chosen_by_babel, mind_flask_caching
from cachemw.integrations._flask_urls import absolute, mounts
from cachemw.rfc9111.invalidation import is_unsafe
from cachemw.rfc9111.policy import Policy
from cachemw.rules import Rule, Rules
from cachemw.settings import Settings

__all__ = ["CacheMW", "FlaskSite"]

#: Has the view, or a function before it, read User-Agent?
_BROWSER_READ: Final = "cachemw.browser_read"

BlueprintT = TypeVar("BlueprintT", bound=Blueprint)


class FlaskSite:
    """The state of the extension for one application, in `app.extensions["cachemw"]`.

    caching      what the site is cached with; `caches` are its stores by alias
    cachings     `caching`, and those of views with a cache or a key prefix of their own
    middlewares  by page, the middlewares of views that the cache around the site does not store
    mounts       paths where the application is mounted, if not at "/"
    """

    def __init__(self, app: Flask, caching: Caching, pages: Mapping[Any, Page]) -> None:
        self.caching = caching
        self._app = app
        self._pages = pages  # by blueprint
        self.middlewares: dict[Page, Any] = {}

    @property
    def caches(self) -> Caches:
        """The application's stores, by alias."""
        return self.caching.caches

    @property
    def cachings(self) -> list[Caching]:
        """What the pages are cached with; of all views, also of those that this process was not asked for yet."""
        of_blueprints = (self._pages[one] for one in self._app.blueprints.values() if one in self._pages)
        for page in (*_pages(self._app), *of_blueprints):
            if page.is_apart:
                page.open(make_middleware, self)
        return [self.caching, *[middleware.caching for middleware in list(self.middlewares.values())]]

    @property
    def mounts(self) -> tuple[str, ...]:
        """The mount of the current request, else APPLICATION_ROOT."""
        return mounts(self._app)


class CacheMW:
    """The Flask extension: the cache around one application, or around several by `init_app`.

        site_cache = CacheMW(app, seconds=60)

    cache, policy, seconds, key_prefix, rules, hooks   as for `CacheMiddleware`; they come before `app.config`
    site    False: cache only the blueprints and views that ask for it, not the whole site
    inside  True: look pages up after Flask's before functions; None: only if language or time zone is part of the key
    static  False: leave the URLs and the headers of static files to Flask

    Raises: ImproperlyConfigured for a wrong setting, for hooks or rules with `site=False`, and for an application that
    has the extension already.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        cache: str | BaseCache | None = None,
        policy: Policy | None = None,
        seconds: float | None = None,
        key_prefix: str | None = None,
        rules: Iterable[Rule | Mapping[str, Any]] | None = None,
        hooks: Hooks | None = None,
        site: bool = True,
        inside: bool | None = None,
        static: bool = True,
    ) -> None:
        self._options: Options = {
            "cache": cache,
            "policy": policy,
            "seconds": seconds,
            "key_prefix": key_prefix,
            "rules": None if rules is None else Rules(rules),
        }
        site = boolean("site", site)
        if not site and (hooks is not None or rules is not None):
            raise ImproperlyConfigured(
                "CacheMW: hooks and rules are of the cache of the whole site, and with site=False there is none. "
                "Around blueprints and views are Flask's own before_request, after_request and teardown_request."
            )
        self._hooks = hooks
        self._site = site
        self._inside = None if inside is None else boolean("inside", inside)
        self._static = boolean("static", static)
        self._pages: dict[Any, Page] = {}  # by blueprint
        self._app = app
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Put the cache around an application; its config has to be complete."""
        if not isinstance(app, Flask):
            raise TypeError(f"CacheMW takes a Flask application; got {app!r}. CacheMiddleware goes around any other.")
        if FLASK_EXTENSION in app.extensions:
            raise ImproperlyConfigured(f"{app!r} has a CacheMW already: call CacheMW(app) or init_app(app), once.")
        settings = Settings.from_mapping(app.config, base=Settings.from_environ())
        chosen = chosen_by_babel(app)
        settings = replace(
            settings,
            use_i18n=settings.use_i18n or "use_i18n" in chosen,
            use_tz=settings.use_tz or "use_tz" in chosen,
        )
        options: Options = {**self._options, "settings": settings}
        caching = Caching(**with_cookies_of(app.config, options))
        # the middlewares made below share its store, and answer by its policy
        options |= {"cache": caching.line.pages.cache, "policy": caching.policy, "seconds": caching.seconds}
        inside = bool(caching.line.properties) if self._inside is None else self._inside
        if self._static:
            FlaskVersions.of(app).install()
        start = _Start(app, FlaskSite(app, caching, self._pages), self._pages, chosen, watches=self._site)
        app.wsgi_app = start  # type: ignore[method-assign]
        if self._site:
            kind = wsgi.UpdateCacheMiddleware if inside else wsgi.CacheMiddleware
            start.inner_half = make_inner_half(**options) if inside else None
            options["hooks"] = self._hooks
            outer = kind(start, **options)
            start.site.caching = outer.caching
            app.wsgi_app = outer  # type: ignore[method-assign]
        else:
            start.invalidate(options, caching.policy)
        if settings.caches is None and self._options["cache"] is None:
            mind_flask_caching(app)
        app.extensions[FLASK_EXTENSION] = start.site
        app.cli.add_command(_commands(start.site))
        _add_tag(app)
        _check_views(app, start.site)

    def blueprint(
        self,
        blueprint: BlueprintT,
        *,
        timeout: float,
        cache: str | BaseCache | None = None,
        key_prefix: str | None = None,
        tags: Tags = (),
    ) -> BlueprintT:
        """Cache the pages of a blueprint, and of the blueprints nested in it, for `timeout` seconds.

            site_cache.blueprint(blog, timeout=900)

        Arguments and errors: those of `cache_page`. Pages are looked up after all before functions, so these guard
        stored pages, too; the after functions run for hits and misses. A `cache_page` on a view, and a call for a
        nested blueprint, come before this one.

        Returns: the blueprint.
        """
        if not isinstance(blueprint, Blueprint):
            raise TypeError(f"CacheMW.blueprint takes a Blueprint; got {blueprint!r}.")
        page = Page(timeout, cache=cache, key_prefix=key_prefix, tags=tags)
        page.name = f"the blueprint {blueprint.name!r}"
        self._pages[blueprint] = page
        return blueprint

    @property
    def caches(self) -> Caches:
        """The stores, by alias, of the current application, else of the one that the constructor was given."""
        return self._site_of(self._current()).caches

    def purge(self, *urls: str, tags: Iterable[str] | None = None, soft: bool = False) -> int:
        """Remove stored pages of the current application by URL, as `url_for` gives it, or by tag.

            site_cache.purge(url_for("blog.entry", id=7))

        A URL without a host gets the host of the current request, or SERVER_NAME without a request. For a site with
        several hosts give the URL of each, or purge by tag. See `cachemw.purge` for the other arguments.

        Raises: ValueError if the host is not known.
        """
        app = self._current()
        site, whole, tags = self._site_of(app), absolute(urls, app), purging.listed(tags)
        return sum(
            purging.purge(*whole, tags=tags, soft=soft, caching=caching, mounts=site.mounts)
            for caching in site.cachings
        )

    async def apurge(self, *urls: str, tags: Iterable[str] | None = None, soft: bool = False) -> int:
        """`purge` for coroutine views."""
        app, total = self._current(), 0
        site, whole, tags = self._site_of(app), absolute(urls, app), purging.listed(tags)
        for caching in site.cachings:
            total += await purging.apurge(*whole, tags=tags, soft=soft, caching=caching, mounts=site.mounts)
        return total

    def _current(self) -> Flask:
        if self._app is not None and not has_app_context():
            return self._app
        return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]

    @staticmethod
    def _site_of(app: Flask) -> FlaskSite:
        site = app.extensions.get(FLASK_EXTENSION)
        if not isinstance(site, FlaskSite):
            raise ImproperlyConfigured(f"{app.name!r} has no CacheMW: call init_app(app) first.")
        return site


class _Start(Forkable):
    """The WSGI application. Before its first request, when all is registered, it adds functions that must be last."""

    def __init__(
        self, app: Flask, site: FlaskSite, pages: Mapping[Any, Page], chosen: Sequence[str], *, watches: bool
    ) -> None:
        self.site = site
        self._chosen = chosen
        self.inner_half: Any = None
        self._app = app
        self._wsgi_app = app.wsgi_app
        self._writing: Any = None
        self._pages = pages
        self._watches = watches
        self._started = False
        super().__init__()

    def _reset(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if not self._started:
            with self._lock:
                if not self._started:
                    self._start()
        app = self._wsgi_app if self._writing is None or not is_unsafe(environ["REQUEST_METHOD"]) else self._writing
        return app(environ, start_response)

    def invalidate(self, options: Options, policy: Policy) -> None:
        """Without a cache of the whole site: let a write to one view (a POST, say) remove the page that it changes."""
        options = {**options, "policy": replace(policy, cache_status=None)}
        self._writing = wsgi.CacheMiddleware(self._wsgi_app, **options)

    def _start(self) -> None:
        app = self._app
        if late := [BY_BABEL[setting] for setting in chosen_by_babel(app) if setting not in self._chosen]:
            names, selector = late[0]
            raise ImproperlyConfigured(
                f"Flask-Babel has a {selector}, and CacheMW(app), which came before it, did not know: call it after "
                f"Babel(app), or set {names[0]} to True, or to False if it chooses the same for everybody."
            )
        _check_views(app, self.site)
        pages = {name: self._pages[one] for name, one in app.blueprints.items() if one in self._pages}
        for page in pages.values():
            page.check(self.site)
        if self._watches:
            app.before_request_funcs.setdefault(None, []).insert(0, _watch_cookies)
            for level in (None, *app.blueprints):  # they are called from the last to the first
                app.after_request_funcs.setdefault(level, []).append(_note_browser)
            app.after_request_funcs[None].insert(0, _forget_browser)
        if pages or self.inner_half is not None:
            for level in (None, *app.blueprints):
                app.before_request_funcs.setdefault(level, []).append(self._looker(level, pages))
        self._started = True

    def _looker(self, level: str | None, pages: Mapping[str, Page]) -> Callable[[], Any]:
        """The last before function of the application or of a blueprint; it acts if none comes after it."""

        def look_up() -> Any:
            if request.blueprint != level:
                return None
            page = next((pages[name] for name in request.blueprints if name in pages), None)
            return self._look_up(page)

        return look_up

    def _look_up(self, page: Page | None) -> Any:
        arguments = request.view_args or {}
        dispatch = self._app.dispatch_request
        if page is not None and not page.join(request.environ.get(EXCHANGE), kwargs=arguments, site=self.site):
            alone = page.open(make_middleware, self.site)
            return respond(alone, dispatch, lambda exchange: page.tell(exchange, kwargs=arguments))
        if self.inner_half is None:
            return None
        return respond(self.inner_half, dispatch, _nothing, inner_half=True)


def _watch_cookies() -> None:
    """The first before function: if the cookies are read from now on, the page varies on Cookie."""
    vars(request._get_current_object()).pop("cookies", None)  # type: ignore[attr-defined]
    request.environ[COOKIES_WATCHED] = True


def _note_browser(response: Any) -> Any:
    """The first after function. Functions that read User-Agent from now on do not change the page: they log it."""
    request.environ.setdefault(_BROWSER_READ, "user_agent" in vars(request._get_current_object()))  # type: ignore[attr-defined]
    return response


def _forget_browser(response: Any) -> Any:
    """The last after function. If User-Agent is read later, a stream is reading it."""
    if request.environ.get(_BROWSER_READ) is False:
        vars(request._get_current_object()).pop("user_agent", None)  # type: ignore[attr-defined]
    return response


def _nothing(exchange: Any) -> None:
    """The site-wide cache needs nothing from the view."""


def _add_tag(app: Flask) -> None:
    """Add `{% cache %}` to the application's templates, without creating the Jinja environment now."""
    if "jinja_env" in vars(app):
        app.jinja_env.add_extension(CacheExtension)
    else:
        known = app.jinja_options.get("extensions", ())
        app.jinja_options = {**app.jinja_options, "extensions": [*known, CacheExtension]}


def _pages(app: Flask) -> Iterator[Page]:
    """The pages of all views, and of the methods of classes of views."""
    for view in app.view_functions.values():
        kind = getattr(view, "view_class", None)
        for one in (view, *(getattr(kind, method.lower(), None) for method in getattr(kind, "methods", None) or ())):
            page = getattr(one, PAGE, None)
            if isinstance(page, Page):
                yield page


def _check_views(app: Flask, site: FlaskSite) -> None:
    for page in _pages(app):
        page.check(site)


def _commands(site: FlaskSite) -> click.Group:
    """`flask cachemw`: the commands of `cachemw`, on the stores of this application."""
    from cachemw.cli import CACHINGS, main

    @click.group("cachemw", cls=type(main), help="Look after this application's caches.")
    @click.pass_context
    def group(ctx: click.Context) -> None:
        ctx.obj = site.caches
        ctx.meta[CACHINGS] = site.cachings

    for name, command in main.commands.items():
        group.add_command(command, name)
    return group
