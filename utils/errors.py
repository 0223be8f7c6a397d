"""The one exception for what a user can mend: a message that names the file and the remedy, exit code 2."""

import errno
import logging
import sys
from collections.abc import Callable

log = logging.getLogger("boa")


class UserError(Exception):
    """Something outside the program is wrong; the message names the file and how to mend it, on one line.

    What cannot be printed, as the codes of a terminal in the name of a file, is written out: \\x1b.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class WriteError(UserError):
    """A file cannot be written: the disk is full, or the folder may not be changed."""


def one_line(text: str) -> str:
    """The text with line ends, codes of a terminal and all else that is not printed written as escapes."""
    text = " ".join(text.splitlines())
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def reason_for(error: BaseException) -> str:
    """The message of another library's error on one line, at most 300 characters, or its name where it has none."""
    text = one_line(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


class Terminated(KeyboardInterrupt):
    """The program was asked to end by SIGTERM."""


class NotFiniteError(UserError):
    """A loss or a prediction is not finite, as when a learning rate is too large."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command line's `main`.

    Exit code 2 with one line for a UserError, a full disk and a GPU that is out of memory, 130 after Ctrl-C,
    143 after SIGTERM.
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
    except KeyboardInterrupt as interruption:
        log.error(interruption or "interrupted")
        sys.exit(143 if isinstance(interruption, Terminated) else 130)
