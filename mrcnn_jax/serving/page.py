"""The page at /: a single document, which loads nothing from anywhere else, and is not allowed to."""

import base64
import functools
import hashlib
from importlib import resources

from starlette.requests import Request
from starlette.responses import HTMLResponse

_STYLE = ("style.css",)
_SCRIPT = ("masks.js", "drawing.js", "page.js")  # in this order


async def page(_: Request) -> HTMLResponse:
    """The page, with a policy that lets a browser run its own script and style and nothing else."""
    html, policy = _page()
    return HTMLResponse(
        html,
        headers={
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        },
    )


@functools.cache
def _page() -> tuple[str, str]:
    """The document with its style and script inside, and the policy that knows these by their hashes."""
    style, script = _read(*_STYLE), _read(*_SCRIPT)
    html = _read("page.html").replace("<style></style>", f"<style>{style}</style>")
    html = html.replace("<script></script>", f"<script>{script}</script>")
    rules = {
        "default-src": "'none'",
        "script-src": _hash_of(script),
        "style-src": _hash_of(style),
        "img-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return html, "; ".join(f"{name} {value}" for name, value in rules.items())


def _read(*names: str) -> str:
    folder = resources.files(__package__) / "page_files"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def _hash_of(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
