"""The one error of a drill that could not be run."""


class DrillError(Exception):
    """The drill could not be run, so nothing is known of the switch; the message says what to do."""
