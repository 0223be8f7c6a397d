"""Read many damaged copies of small good files: `PYTHONPATH=.:tests python tests/scripts/damage_footage.py 10000`.

Prints, for each kind of file, how many were read, refused in one line, and neither, the longest time, and the peak of
memory. Each kind has a process of its own, which a crash ends; it goes on behind the copy that crashed it.
"""

import logging
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from damaged_footage import MAKERS, damaged, make_case, outcome

LONGEST = 30.0  # s


def work(name: str, count: int, first: int, answers: Connection) -> None:
    """Read the copies from the first on; answer with number, outcome, seconds and MB of each."""
    logging.disable()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        case = make_case(name, Path(folder) / "case")
        for number, data in enumerate(list(damaged(case, count, seed=1))):
            if number < first:
                continue
            start = time.perf_counter()
            try:
                said = outcome(case, data)
            except Exception as error:
                said = f"FAILED {type(error).__name__}: {error}"
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            answers.send((number, said, time.perf_counter() - start, peak))


def try_kind(name: str, count: int) -> None:
    """Try all copies of one kind of file and print a line."""
    counts, longest, largest, failures, next_one = Counter[str](), 0.0, 0.0, [], 0
    while next_one < count:
        answers, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=work, args=(name, count, next_one, theirs))
        process.start()
        theirs.close()
        while next_one < count:
            try:
                if not answers.poll(LONGEST + 30 * (next_one == 0)):
                    raise EOFError
                number, said, seconds, peak = answers.recv()
            except EOFError:
                failures.append(f"{next_one}: crashed or over {LONGEST:.0f} s")
                counts["crashed"] += 1
                next_one += 1
                break
            next_one = number + 1
            kind = "read" if said == "read" else "failed" if said.startswith("FAILED") else "refused"
            counts[kind] += 1
            longest, largest = max(longest, seconds), max(largest, peak)
            if kind == "failed":
                failures.append(f"{number}: {said}")
        process.kill()
        process.join()
    print(f"{name}: {dict(counts)}, longest {longest:.2f} s, peak {largest:.0f} MB", flush=True)
    for failure in failures[:10]:
        print("   ", failure, flush=True)


if __name__ == "__main__":
    for kind_of_file in sys.argv[2:] or MAKERS:
        try_kind(kind_of_file, int(sys.argv[1]))
