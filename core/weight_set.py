"""The vocabulary of weight sets. Pure."""

from enum import StrEnum


class WeightSetState(StrEnum):
    """What is known of a set."""

    INSTALLING = "INSTALLING"
    READY = "READY"
    DELETING = "DELETING"
