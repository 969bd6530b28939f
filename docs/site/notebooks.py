"""Makes a page of every notebook: an MkDocs hook.

The cells and the stored outputs become Markdown, and pictures become files beside the page; nothing is run.
"""

import base64
import json
import posixpath
from typing import Any

from mkdocs.structure.files import File, Files


def on_files(files: Files, config: Any) -> Files:
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        name = file.src_uri.removesuffix(".ipynb")
        pictures: list[bytes] = []
        parts = []
        for cell in json.loads(file.content_string)["cells"]:
            source = "".join(cell["source"])
            parts.append(source if cell["cell_type"] == "markdown" else _fenced(source, "python"))
            for output in cell.get("outputs", []):
                parts.append(_shown(output, posixpath.basename(name), pictures))
        title, *rest = parts
        own = f"*This page is a notebook: [download it]({posixpath.basename(file.src_uri)}){{: download}}.*"
        files.append(File.generated(config, f"{name}.md", content="\n\n".join([title, own, *rest])))
        for number, picture in enumerate(pictures, start=1):
            files.append(File.generated(config, f"{name}_{number}.png", content=picture))
    return files


def _shown(output: dict[str, Any], name: str, pictures: list[bytes]) -> str:
    """An output as Markdown; a picture is added to ``pictures``."""
    if output["output_type"] == "stream":
        return _fenced("".join(output["text"]), "text")
    if picture := output["data"].get("image/png"):
        pictures.append(base64.b64decode(picture))
        return f"![output]({name}_{len(pictures)}.png)"
    return _fenced("".join(output["data"]["text/plain"]), "text")


def _fenced(text: str, language: str) -> str:
    return f"~~~~{language}\n{text.rstrip()}\n~~~~"
