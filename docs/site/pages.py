"""Makes pages of files outside ``docs/``, and links to them: an MkDocs hook.

In the repository a link like ``../mrcnn_jax/ops/nms/plain.py`` leads to a file. The site has a page of every
file that its pages link to, so that it is complete without the repository, and the same links work in both.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
# Pages of files at the top of the repository, by their names there.
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)#\s]+)")  # the target of a relative link, without its anchor
_FENCE = "~~~~~~"


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of the README and others, and of every file that a page links to."""
    for name, page in TOP.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    targets = {
        target
        for file in files.documentation_pages()
        for target in _linked(file.content_string, _folder(file.src_uri))
    }
    for target in sorted(targets):
        if _page(target).startswith("source/"):
            files.append(File.generated(config, _page(target), content=_show(target, targets)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page's text with its links relative to where the site has their targets."""
    if page.file.src_uri.startswith("source/"):
        return markdown
    here = posixpath.dirname(page.file.src_uri)

    def rewrite(target: str) -> str:
        path = posixpath.normpath(posixpath.join(_folder(page.file.src_uri), target))
        return posixpath.relpath(_page(path), here or ".") if (ROOT / path).exists() else target

    return _LINK.sub(lambda link: rewrite(link[1]), markdown)


def _folder(page: str) -> str:
    """The folder in the repository that a page's links are relative to."""
    return "" if page in TOP.values() else posixpath.dirname(f"docs/{page}")


def _linked(text: str, folder: str) -> set[str]:
    """The files of the repository that a page in ``folder`` links to, by their paths there."""
    paths = (posixpath.normpath(posixpath.join(folder, link)) for link in _LINK.findall(text))
    return {path for path in paths if not path.startswith("..") and (ROOT / path).exists()}


def _page(path: str) -> str:
    """The site's file for a file or folder of the repository."""
    if path.startswith("docs/"):
        return re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))
    return TOP.get(path, f"source/{path}.md")


def _show(path: str, linked: set[str]) -> str:
    """The page of a file, or of a folder with links to those of its files that have one."""
    if (ROOT / path).is_dir():
        entries = sorted(entry.name for entry in (ROOT / path).iterdir() if entry.name[0] not in "._")
        body = "\n".join(_entry(path, name, linked) for name in entries)
    else:
        language = {".py": "python", ".yaml": "yaml"}.get(Path(path).suffix, "text")
        body = f"{_FENCE}{language}\n{(ROOT / path).read_text(encoding='utf-8')}\n{_FENCE}"
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n{body}\n"


def _entry(folder: str, name: str, linked: set[str]) -> str:
    path = f"{folder}/{name}"
    return f"- [{name}]({posixpath.basename(folder)}/{name}.md)" if path in linked else f"- {name}"
