"""Running processes look at the key files every second: a rotation needs no restart."""

import logging

from signals.killswitch.keyring import KeyRing
from signals.killswitch.signing import KeyFormatError

logger = logging.getLogger(__name__)


def reload_keys(ring: KeyRing) -> None:
    """Read the keys again where the files have changed, and log what became of it."""
    try:
        if ring.reload_if_changed():
            logger.warning("the signing keys were read again: %s signs", ring.signer.key_id)
    except (KeyFormatError, OSError) as error:
        logger.error("the key files can't be used, keys stay as they were: %s", error)
