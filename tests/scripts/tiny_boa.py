"""boa.py with a network of a few thousand weights, perhaps killed again and again.

python tiny_boa.py [--kills N] [--longest SECONDS] --name NAME <arguments of boa.py>

With --kills, runs NAME-0, NAME-1, ... are begun, killed at random moments, after so many seconds of computing at most,
and gone on with, until there were so many kills and the last run is complete.
"""

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import toys

import boa
import models.hmr


def tiny_hmr(*files: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return toys.TinyRegressor()


def computed(process: int) -> float:
    """Seconds of computing of a process that still runs."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_killed(arguments: list[str], limit: float) -> bool:
    """Run boa.py in a process of its own -> whether it computed for so long that it was killed."""
    child = os.fork()
    if not child:
        boa.run_command(lambda: boa.main(arguments))
        os._exit(0)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if computed(child) > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(0.01)
    if ended[1]:
        sys.exit(f"boa.py {' '.join(arguments)} failed")
    return False


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--longest", type=float, default=1.0)
    parser.add_argument("--name")
    own, arguments = parser.parse_known_args()
    models.hmr.load_hmr = tiny_hmr
    if not own.kills:
        boa.run_command(lambda: boa.main(["--name", own.name, *arguments]))
        return
    random.seed(own.kills)
    number = kills = 0
    while kills < own.kills:
        if is_killed(["--name", f"{own.name}-{number}", "--resume", *arguments], random.uniform(0, own.longest)):
            kills += 1
        else:
            number += 1
    is_killed(["--name", f"{own.name}-{number}", "--resume", *arguments], float("inf"))


if __name__ == "__main__":
    sys.exit(main())
