"""Keys the entries of a COCO section by id, and reports ids that are invalid or not unique."""

from pathlib import Path

from mrcnn_jax.data import fields
from mrcnn_jax.data.findings import Finding

_LISTED = 10  # duplicate annotation ids that are listed one by one


def images_by_id(content: dict, path: Path, findings: list[Finding]) -> tuple[dict[int, dict], set[int]]:
    """The image entries, keyed by id, in file order; and the ids of several entries that are not equal.

    It is unknown which of such entries an annotation refers to. Appends to ``findings``.
    """
    by_id: dict[int, dict] = {}
    ambiguous = set()
    for index, entry in _entries(content, "images", path, findings):
        first = by_id.setdefault(entry["id"], entry)
        if first is not entry:
            findings.append(Finding(str(path), entry["id"], None, f"images[{index}]: duplicate id"))
            if first != entry:
                ambiguous.add(entry["id"])
    return by_id, ambiguous


def annotations_by_id(
    content: dict, path: Path, findings: list[Finding], *, renumber: bool
) -> dict[int, dict]:
    """The annotation entries, keyed by id, in file order; of entries with the same id, the first.

    Ids that restart in every image are unambiguous, as no image has two of the same. With ``renumber`` all
    annotations then get new ids, from 1 in file order. Appends to ``findings``.
    """
    entries = _entries(content, "annotations", path, findings)
    by_id: dict[int, dict] = {}
    duplicates = []
    for index, entry in entries:
        if by_id.setdefault(entry["id"], entry) is not entry:
            duplicates.append((index, entry))
    if not duplicates:
        return by_id
    index, entry = duplicates[0]
    example = f"annotations[{index}] with id {entry['id']}, which another annotation has"
    restart = len({(image_id_of(entry), entry["id"]) for _, entry in entries}) == len(entries)
    if restart and renumber:
        rule = f"ids restart in every image ({example}); they are renumbered from 1, in file order"
        findings.append(Finding(str(path), None, None, rule, True))
        for index, entry in entries:
            entry["id"] = index + 1
        return {entry["id"]: entry for _, entry in entries}
    if restart or len(duplicates) > _LISTED:
        reason = "ids restart in every image" if restart else "ids repeat"
        rule = f"{reason}: {len(duplicates)} annotations have the id of an earlier one, such as {example}"
        findings.append(Finding(str(path), None, None, rule))
    else:
        findings += [
            Finding(str(path), image_id_of(entry), entry["id"], f"annotations[{index}]: duplicate id")
            for index, entry in duplicates
        ]
    return by_id


def image_id_of(entry: dict) -> int | None:
    """The image id of an annotation entry, if it has a usable one."""
    return fields.as_integer(entry.get("image_id"))


def _entries(content: dict, section: str, path: Path, findings: list[Finding]) -> list[tuple[int, dict]]:
    """The entries of a section that have a valid id, which becomes an integer, with their indices."""
    entries = []
    for index, entry in enumerate(fields.section(content, section, str(path))):
        try:
            if not isinstance(entry, dict):
                raise fields.error("", f"{section}[{index}]", "an object", entry)
            entry["id"] = fields.integer(entry, "id", f"{section}[{index}]")
        except ValueError as error:
            findings.append(Finding(str(path), None, None, str(error)))
            continue
        entries.append((index, entry))
    return entries
