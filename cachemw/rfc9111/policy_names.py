"""The names by which a policy knows, unless it is given others, who is asking and for which page: cookies and fields.

Each was met in a framework, a login service or a proxy that people use; if it is not obvious which, the line says so.
"""

from __future__ import annotations

from typing import Final

__all__ = ["KEYED_FIELDS", "SESSION_COOKIES"]

#: Cookies by which common frameworks, and proxies that log people in, recognise a session. A trailing "*" matches any
#: ending of a name, a leading one any beginning; "__Host-" and "__Secure-" in front do not count as part of the name.
SESSION_COOKIES: Final = (
    "session",  # Flask, Starlette
    "sessionid",  # Django
    "session_id",
    "*_session",  # py4web, pretix, Indico, Superset, whose sessions are named after the application
    "*-session",
    "*sessionid",  # Review Board
    "*session_id",  # web.py
    "*session-id",  # Solara
    "*session_token",  # applications that follow FastAPI's guides
    "*session-token",
    "*sessionToken",
    "session_id_*",  # web2py
    "emt_session_data_*",  # Emmett
    "roundup_session_*",
    "PHPSESSID",
    "JSESSIONID",
    "ASP.NET_SessionId",
    ".AspNetCore.*",
    "connect.sid",  # Express
    "SESSION",  # Spring
    "__session",  # Clerk, Firebase
    "username",  # Flask's quickstart, which reads it from any visitor
    "user",  # Tornado's manual
    "user_id",
    "account",  # Bottle's tutorial
    "sid",  # Frappe
    "identity",  # BlackSheep
    "remember_token",  # Flask-Login
    "access_token*",  # FastAPI's guides, Flask-JWT-Extended
    "access-token*",  # FastAPI-Login, Gradio
    "auth_tkt",  # Pyramid
    "authtkt",  # TurboGears
    "QUART_AUTH",
    "ds_actor",  # Datasette
    "galaxysession",  # Galaxy
    "girderToken",  # Girder
    "trac_auth",  # Trac
    "MOIN_SESSION*",  # MoinMoin
    "_streamlit_user",  # Streamlit
    "__ac",  # Plone
    "jupyterhub-*",
    "auth_token",
    "fastapiusersauth",  # FastAPI Users
    "id_token",
    "jwt",
    "auth",
    "_token",  # Airflow
    "token",  # Litestar's JWTCookieAuth
    "beaker.session.id",  # Pyramid, Pylons
    "_session*",
    "wordpress_logged_in_*",
    "laravel_session",
    "__Host-session*",
    "__Secure-session*",
    "next-auth.session-token*",
    "authjs.session-token*",
    "appSession*",  # Auth0
    "better-auth.session_token",
    "ory_kratos_session",  # Ory, as is the next one
    "ory_session_*",
    "sAccessToken",  # SuperTokens
    "stytch_session*",
    "wos-session",  # WorkOS
    "sb-*",  # Supabase
    "_oauth2_proxy*",
    "mod_auth_openidc_session",
    "authelia_session",
    "CF_Authorization",  # Cloudflare Access
    "AWSELBAuthSessionCookie*",
    "AppServiceAuthSession*",  # Azure
    "GCP_IAAP_AUTH_TOKEN_*",  # with the next one, Google's Identity-Aware Proxy
    "GCP_IAP_AUTH_TOKEN_*",
    "_forward_auth",  # Traefik
    "_pomerium*",
    "authentik_*",
    "kc-access*",  # Keycloak's gatekeeper
    "VouchCookie*",
    "messages",  # Django's to one visitor, shown once; so are the next three
    "statusmessages",  # Plone
    "ds_messages",  # Datasette
    "py4web-flash",
)

#: Parts of the key whenever a request has one: who may have the page, or which page it is, may depend on them, and
#: applications hardly ever say so in Vary.
KEYED_FIELDS: Final = (
    # By these a client may override scheme, host, path or method, and some framework obeys (web cache poisoning:
    # "Practical Web Cache Poisoning", Kettle 2018).
    "forwarded",  # its host and proto parameters only: `for` differs with every client
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "x-scheme",  # Tornado
    "x-script-name",
    "x-url-scheme",
    "front-end-https",
    # By these scripts ask for a part of the page, or for the page as another site's. If an application forgets Vary, as
    # CORS middlewares do for a request without Origin, one would be stored in the place of the other.
    "hx-boosted",  # htmx, as are the next five
    "hx-history-restore-request",
    "hx-request",
    "hx-target",
    "hx-trigger",
    "hx-trigger-name",
    "origin",
    "turbo-frame",  # Hotwire
    "x-inertia",  # Inertia, as are the next four
    "x-inertia-partial-component",
    "x-inertia-partial-data",
    "x-inertia-partial-except",
    "x-inertia-reset",
    "x-pjax",
    "x-pjax-container",
    "x-requested-with",  # jQuery
    "x-up-context",  # Unpoly, as are the next two
    "x-up-mode",
    "x-up-target",
    # Credentials besides Authorization.
    "api-key",
    "apikey",  # Kong, Supabase
    "auth-token",
    "authentication",
    "authentication-token",  # Flask-Security
    "ocp-apim-subscription-key",  # Azure
    "private-token",  # GitLab
    "token",
    "x-access-key",
    "x-access-token",
    "x-api-key",
    "x-api-token",
    "x-apikey",
    "x-auth",
    "x-auth-key",
    "x-auth-token",
    "x-authorization",
    "x-devpi-auth",
    "x-goog-api-key",
    "x-id-token",
    "x-jwt",
    "x-jwt-token",
    "x-key",  # with the next one, FastAPI's guide to dependencies
    "x-rapidapi-key",
    "x-session-id",
    "x-session-token",
    "x-token",
    # By these the client says whose data it asks for.
    "x-account-id",
    "x-org-id",
    "x-organization-id",
    "x-tenant-id",
    "x-workspace-id",
    # By these a proxy says whom it has authenticated.
    "cf-access-authenticated-user-email",  # Cloudflare Access
    "cf-access-jwt-assertion",  # the same, for a service, which has no address
    "client-cert",  # RFC 9440
    "remote-user",  # Authelia
    "ssl-client-cert",  # with the next one, nginx as an ingress of Kubernetes
    "ssl-client-subject-dn",
    "tailscale-user-login",
    "x-amzn-mtls-clientcert",  # with the next three, AWS
    "x-amzn-mtls-clientcert-leaf",
    "x-amzn-mtls-clientcert-subject",
    "x-amzn-oidc-identity",
    "x-apigateway-api-userinfo",  # with x-endpoint-api-userinfo, Google
    "x-arr-clientcert",  # Azure
    "x-auth-email",  # with x-auth-username, Keycloak's gatekeeper
    "x-auth-request-email",  # with the next one, oauth2-proxy behind nginx
    "x-auth-request-user",
    "x-auth-user",
    "x-auth-username",
    "x-authenticated-user",
    "x-authenticated-userid",  # Kong, with x-consumer-id
    "x-authentik-username",
    "x-client-cert",
    "x-consumer-id",
    "x-consumer-username",
    "x-endpoint-api-userinfo",
    "x-forwarded-client-cert",  # Envoy
    "x-forwarded-email",
    "x-forwarded-user",  # oauth2-proxy, Traefik
    "x-goog-authenticated-user-email",  # Google's Identity-Aware Proxy
    "x-jwt-assertion",  # WSO2
    "x-ms-client-principal",  # with the next one, Azure
    "x-ms-client-principal-id",
    "x-pomerium-claim-email",
    "x-remote-user",
    "x-ssl-client-cert",
    "x-ssl-client-s-dn",
    "x-user",
    "x-user-id",
    "x-username",
    "x-vouch-user",
    "x-webauth-user",
)
