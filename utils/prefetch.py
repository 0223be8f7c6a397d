"""The next frame is prepared while the one at hand is worked on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from utils.structures import Frame


def ahead(items: Iterator[Frame]) -> Iterator[Frame]:
    """The same items, the next one prepared by a thread meanwhile.

    A thread, not a process: it reports an unreadable file as it is, and needs no shared memory.
    """
    with ThreadPoolExecutor(max_workers=1) as reader:
        upcoming = reader.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = reader.submit(next, items, None)
            yield item
