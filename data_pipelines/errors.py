"""What is wrong with data, by name, so that it can be counted and said."""

INTERRUPTED = 130  # status of a command that Ctrl-C ends: 128 + SIGINT


class BadRecord(Exception):
    """A record that cannot be used; `reason` is a short snake_case word to count it by."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


class TooManyBadRecords(Exception):
    """A larger share of a dataset's records is unusable than its config allows."""
