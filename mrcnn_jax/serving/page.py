"""The page at /: one file, which loads nothing from anywhere else, and is not allowed to."""

import base64
import functools
import hashlib
import re
from importlib import resources

from starlette.requests import Request
from starlette.responses import HTMLResponse


async def page(_: Request) -> HTMLResponse:
    """The page, with a policy that lets a browser run its own script and style and nothing else."""
    html, policy = _page()
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(html, headers=headers)


@functools.cache
def _page() -> tuple[str, str]:
    html = (resources.files(__package__) / "page.html").read_text(encoding="utf-8")
    rules = {
        "default-src": "'none'",
        "script-src": _hash_of("script", html),
        "style-src": _hash_of("style", html),
        "img-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return html, "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash_of(tag: str, html: str) -> str:
    """What a policy calls the content of the page's only element of this kind."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
