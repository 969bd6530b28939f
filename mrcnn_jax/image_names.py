"""How the image entries of COCO's and LVIS's annotation files name the images' files."""

from typing import Any

LVIS_FIELD = "neg_category_ids"  # of LVIS's image entries, and of no others


def image_names(entry: dict[str, Any]) -> list[str]:
    """The names that an image's file may have, relative to the folder of images, the likeliest first.

    That is the entry's ``file_name``. LVIS has the end of ``coco_url`` in its place,
    ``train2017/000000000009.jpg``, and the file may also lie outside the folder ``train2017``. Raises
    ValueError if an entry has neither.
    """
    name, url = entry.get("file_name"), entry.get("coco_url")
    names = [name] if isinstance(name, str) and name else []
    if isinstance(url, str) and (not names or LVIS_FIELD in entry):
        parts = [part for part in url.split("/") if part]
        # LVIS v0.5 has both: its file names are those of COCO 2014.
        names = [*dict.fromkeys(["/".join(parts[-2:]), parts[-1]] if parts else []), *names]
    if not names:
        raise ValueError(f"file_name must be a string, got {name!r}")
    return names
