"""The base of the errors that end a command."""


class InsightsError(Exception):
    """Its message is a sentence for people: the command line prints it and exits 1."""
