"""What a user is told instead of a traceback."""


class Refused(Exception):
    """The checkpoint, the options or the result are not good enough to leave a folder behind; the text says why."""
