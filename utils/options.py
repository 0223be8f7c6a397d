"""A command line from a typed table: one frozen dataclass, one field per flag."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Table = TypeVar("Table")


def option(default: Any, help: str, choices: Sequence[str] | None = None, least: int | None = None) -> Any:
    """A field of such a table, with what the command line says about it and, for numbers, the least that is allowed."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "least": least})


def parse(
    table: type[Table],
    description: str,
    argv: Sequence[str] | None = None,
    defaults: Callable[[argparse.Namespace], Mapping[str, Any]] = lambda given: {},
) -> Table:
    """Read the command line into a table of options; `name` is the only flag that must be given.

    `defaults` may replace the table's defaults in the light of the flags that were given.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(table):
        flag, help = f"--{field.name}", field.metadata["help"]
        if field.type is bool:
            parser.add_argument(flag, action="store_true", help=help)
            continue
        shown = help if field.default == "" else f"{help} (default: {field.default})"
        more = {"choices": field.metadata["choices"], "required": field.name == "name"}
        parser.add_argument(flag, type=field.type, default=field.default, help=shown, **more)
    parser.set_defaults(**defaults(parser.parse_args(argv)))
    options = table(**vars(parser.parse_args(argv)))
    for field in dataclasses.fields(table):
        least = field.metadata["least"]
        if least is not None and getattr(options, field.name) < least:
            parser.error(f"--{field.name} must be at least {least}")
    return options
