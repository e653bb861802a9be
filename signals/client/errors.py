"""What the client raises beside `SwitchError`: the connection, the subscription or the state on disk is at fault."""


class ClientError(Exception):
    """The client can't go on; the message says why."""


class RefusedError(ClientError):
    """Cordon refuses this subscription for good: the token, the rollout or the cursor is wrong."""


class UnknownRolloutError(ClientError):
    """Neither an event nor a lease of that rollout has come: it is never answered for by a default."""


class UnknownPartError(ClientError):
    """The rollout declares no such ring, or the OS build is none: a typo is no part that nothing stops."""


class StateError(ClientError):
    """The state on disk can't be used; the message says why and what to do."""
