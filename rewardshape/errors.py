"""The one exception that means: the user's input is at fault, and this one line says how to mend it."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: a file, a field, a flag.

    The message is one line that names what is wrong, where (file:line, field or flag) and what to do.
    The command line prints it as ``error: …`` and exits with status 2; in Python it is a ValueError.
    """
