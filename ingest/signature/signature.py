"""Turns a crash into its signature: the names of the groups it belongs to, at several grains at once.

Called by grouping for every crash report; pure, about ten microseconds. One grain is not enough: too coarse hides a new
fault behind an old one, too fine sprays one fault over many groups none of which reaches a threshold. Invariant: the
text of a coarser grain is a prefix of that of the finer one, and texts are bounded and printable whatever came in.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, Literal

import msgspec

from ingest.signature.blame import Evidence, Frame, FrameLike, blame_of, is_third_party
from ingest.signature.normalise import bugcheck_facts, normalise_bugcheck, normalise_module

Grain = Literal["module", "module+bugcheck", "frames"]
GRAINS: Final[tuple[Grain, ...]] = ("module", "module+bugcheck", "frames")

FRAMES_READ_MAX: Final = 64
FRAMES_HASHED_MAX: Final = 3
FRAME_CHARS_MAX: Final = 80
UNKNOWN: Final = "<unknown>"
"""Stands for the module when none can be blamed. No file name holds ``<``, so no driver can take this name."""
DELIBERATE: Final = "<deliberate>"
"""Stands for the module of a crash that a person asked for."""

_DIGEST_BYTES: Final = 8
_U32_MASK: Final = 0xFFFF_FFFF
_U64_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF


class Signature(msgspec.Struct, frozen=True):
    """A crash group's names, and how they came about."""

    bugcheck: int
    """The normalised code; 0 if the machine stopped without one."""
    module: str
    """Grain ``module``: ``csagent.sys``, or ``<unknown>`` or ``<deliberate>``."""
    module_bugcheck: str
    """Grain ``module+bugcheck``: ``csagent.sys|0x50``. Like ``module``, the same for every version of the driver."""
    frames: str
    """Grain ``frames``: ``csagent.sys|0x50|csagent.sys+0xe14ed|<16 hex digits>``, ``...|-`` without frames.

    Offsets move with every build of a driver, so this grain tells versions apart."""
    deliberate: bool
    """A person asked for this crash: it is no evidence against any update."""
    rule: str
    """Name of the blame rule that decided."""
    notes: tuple[str, ...]

    def text(self, grain: Grain) -> str:
        """Return the signature's text at a grain."""
        if grain == "module":
            return self.module
        return self.module_bugcheck if grain == "module+bugcheck" else self.frames


def signature_of(
    bugcheck: int, parameters: Sequence[int | str], frames: Sequence[FrameLike], stated_module: str = ""
) -> Signature:
    """Return the signature of one crash.

    Args:
        bugcheck: the stop code, raw or normalised; 0 if there was none.
        parameters: its parameters, numbers or hexadecimal text as on the wire. Only the subcode is used here: addresses
            mean nothing off the device.
        frames: module-relative places on the stack, innermost first; those past the first 64 are not looked at.
        stated_module: the module the agent blames, may be empty.

    Raises:
        ValueError: the subcode is text but not hexadecimal; the wire types refuse such a report before it gets here.
    """
    code = normalise_bugcheck(bugcheck)
    places, telling = _read_frames(frames)
    blame = blame_of(Evidence(bugcheck=code, stated_module=normalise_module(stated_module), frames=places))
    is_deliberate = blame.rule == "deliberate"
    module = blame.module or (DELIBERATE if is_deliberate else UNKNOWN)
    module_bugcheck = f"{module}|{code:#x}"
    return Signature(
        bugcheck=code,
        module=module,
        module_bugcheck=module_bugcheck,
        frames=f"{module_bugcheck}|{_frames_text(telling or places, _subcode(code, parameters))}",
        deliberate=is_deliberate,
        rule=blame.rule,
        notes=blame.notes if code else (*blame.notes, "no stop code: a hang or a loss of power, not a blue screen"),
    )


def telling_frames(frames: Sequence[FrameLike]) -> list[str]:
    """Return the places that the grain `frames` is made of, innermost first, as an engineer reads them.

    At most three and all different, as `csagent.sys+0xe14ed`: drivers' own places, and the kernel's and the frameworks'
    only where there is nothing else. Empty without a usable frame. Each is printable and at most `FRAME_CHARS_MAX`
    characters; of a longer one the name is cut, which `~` marks, and never the offset.
    """
    places, telling = _read_frames(frames)
    return [text if len(text) <= FRAME_CHARS_MAX else _cut(text) for text in _distinct(telling or places)]


def _cut(text: str) -> str:
    module, _, offset = text.rpartition("+")
    return f"{module[: FRAME_CHARS_MAX - len(offset) - 2]}~+{offset}"


def _subcode(code: int, parameters: Sequence[int | str]) -> int:
    number = bugcheck_facts(code).subcode
    if number is None or len(parameters) < number:
        return 0
    value = parameters[number - 1]
    # Exception codes are sign-extended by some tools (0xffffffffc0000005) and not by others.
    return (int(value, 16) if isinstance(value, str) else value) & _U32_MASK


def _read_frames(frames: Sequence[FrameLike]) -> tuple[list[Frame], list[Frame]]:
    """Return the places named by frames, and those of them that tell crashes apart, at most three and all different.

    The kernel's and the frameworks' own offsets change with every Windows build, which would spray one fault over all
    builds: they count only where there is nothing else. Reading stops once three telling places are found, as no rule
    and no text looks further. Names are looked up once a call: a stack repeats few modules many times.
    """
    names: dict[str, tuple[str, bool]] = {}
    places: list[Frame] = []
    telling: list[Frame] = []
    for frame in frames[:FRAMES_READ_MAX]:
        raw = frame.module
        known = names.get(raw)
        if known is None:
            module = normalise_module(raw)
            known = names[raw] = (module, is_third_party(module))
        module, tells = known
        if not module:
            continue
        place = Frame(module, frame.offset)
        places.append(place)
        if tells and place not in telling:
            telling.append(place)
            if len(telling) == FRAMES_HASHED_MAX:
                break
    return places, telling


def _frames_text(places: Sequence[Frame], subcode: int) -> str:
    """Name the first place and hash the first three different ones with the subcode."""
    if not places:
        return "-"
    distinct = _distinct(places)
    hashed = f"{subcode:x};{';'.join(distinct)}".encode()
    return f"{distinct[0]}|{blake2b(hashed, digest_size=_DIGEST_BYTES).hexdigest()}"


def _distinct(places: Sequence[Frame]) -> list[str]:
    """Return the first three different places as texts."""
    return [f"{module}+{offset & _U64_MASK:#x}" for module, offset in dict.fromkeys(places)][:FRAMES_HASHED_MAX]
