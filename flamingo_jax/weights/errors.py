"""The one error every reader of published weights raises."""


class BadWeightsFile(ValueError):
    """A weights file that cannot be used; the message says which, why, and what to do."""
