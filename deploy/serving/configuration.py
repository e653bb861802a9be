"""What a person may have got wrong, read and checked once before any part of a process is made."""

from pathlib import Path

from detectors.policy import Policies, PolicyError
from detectors.policy import load as load_policy
from ingest.gateway.pseudonym import PseudonymKeyError, load_key
from ingest.settings import Settings
from ingest.topics import Topics


class ConfigurationError(Exception):
    """The installation can't run as it is set up; the message says what to do."""


def topics_of(settings: Settings) -> Topics:
    """Return the lane's topic names and partition counts.

    Raises:
        ConfigurationError: the lane's name can't be one.
    """
    try:
        return Topics(settings.lane, settings.device_partitions, settings.keyed_partitions)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def policies_of(settings: Settings) -> Policies:
    """Return the policies.

    Raises:
        ConfigurationError: the policy file can't be used.
    """
    try:
        return load_policy(Path(settings.policy_file) if settings.policy_file else None)
    except (ValueError, PolicyError) as error:
        raise ConfigurationError(str(error)) from error


def pseudonym_key_of(settings: Settings) -> bytes:
    """Return the installation's pseudonym key, made on first use.

    Raises:
        ConfigurationError: the file holds none.
    """
    try:
        return load_key(Path(settings.data_dir) / "pseudonym.key")
    except PseudonymKeyError as error:
        raise ConfigurationError(str(error)) from error
