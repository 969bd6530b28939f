"""A progress bar whose rate leaves out compilations, which it announces."""

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TypeVar

from tqdm import tqdm

from mrcnn_jax.runtime.compilations import watch_compilations

_T = TypeVar("_T")


def progress_bar(
    items: Iterable[_T],
    *,
    total: int | None,
    initial: int = 0,
    unit: str = "image",
    hidden: bool = False,
) -> Iterator[_T]:
    """Yields ``items``, the results of images, and shows on stderr how many of ``total`` there are.

    ``initial`` of them are done already; ``total`` is None if it is not known. While the next item is
    computed, compilations are announced in lines above the bar. Without a terminal there are only these;
    if ``hidden``, nothing is shown.
    """
    with tqdm(total=total, initial=initial, unit=unit, disable=hidden or None) as bar:
        announce = partial(_announce, bar)
        results = iter(items)
        while True:
            with watch_compilations(None if hidden else announce):
                try:
                    item = next(results)
                except StopIteration:
                    return
            yield item
            bar.update()


def _announce(bar: tqdm, program: str, seconds: float | None) -> None:
    if seconds is None:
        line = f"compiling {program} ..."
    else:
        line = f"... {seconds:.0f} s"
        if not bar.disable:  # the rate is over the time since these
            bar.start_t += seconds
            bar.last_print_t += seconds
    tqdm.write(line, file=sys.stderr)
