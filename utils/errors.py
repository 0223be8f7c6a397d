"""The one exception for what a user can mend: a message that names the file and the remedy, exit code 2."""

import errno
import logging
import sys
from collections.abc import Callable

log = logging.getLogger("boa")


class UserError(Exception):
    """Something outside the program is wrong; the message names the file and how to mend it."""


class NotFiniteError(UserError):
    """A loss or a prediction is not finite, as when a learning rate is too large."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command line's `main`.

    Exit code 2 with one line for a UserError, a full disk and a GPU that is out of memory, 130 after Ctrl-C.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    try:
        main()
    except UserError as error:
        log.error(error)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        log.error("%s; free some space or choose another folder", error)
        sys.exit(2)
    except RuntimeError as error:
        # the class is compared by name, so that commands without a network need not wait for torch
        if type(error).__name__ != "OutOfMemoryError":
            raise
        log.error("the GPU is out of memory; use --first_order, a smaller --batch_size or --device cpu")
        sys.exit(2)
    except KeyboardInterrupt:
        log.error("interrupted")
        sys.exit(130)
