"""Decides which module a crash is blamed on: an ordered list of small named rules, the first that answers wins.

Used twice: on the device, where addresses of the dump have been resolved to modules, and in grouping, where only the
agent's word and the frames are left. Invariant: the kernel is blamed only if no other module was seen anywhere, and
every answer carries the name of the rule that gave it and a note a person can check.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from ingest.signature.lists import GENERIC_MODULES, KERNEL_MODULES
from ingest.signature.normalise import bugcheck_facts


class FrameLike(Protocol):
    """A place in a module: what the wire's frames and `Frame` have in common."""

    @property
    def module(self) -> str:
        """The module's name."""

    @property
    def offset(self) -> int:
        """Bytes from the module's base."""


class Frame(NamedTuple):
    """A place in a module: its normalised name and the offset in bytes from its base."""

    module: str
    offset: int

    def __str__(self) -> str:
        return f"{self.module}+{self.offset:#x}"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a crash; codes and names are normalised, places that are not in any module are None."""

    bugcheck: int
    stated_module: str = ""
    fault: Frame | None = None
    """Where the bug check's own parameter says the fault happened."""
    context: Frame | None = None
    """The instruction pointer of the saved registers."""
    exception: Frame | None = None
    """The address in the exception record, often the kernel's own breakpoint."""
    frames: Sequence[Frame] = ()
    """Places found on the stack, innermost first."""


class Blame(msgspec.Struct, frozen=True):
    """The module blamed (empty if none), where in it in bytes if known, the rule that said so, and why."""

    module: str
    offset: int | None
    rule: str
    notes: tuple[str, ...]


class _Candidate(NamedTuple):
    module: str
    offset: int | None
    source: str


Rule = Callable[[Evidence], Blame | None]

# One look instead of two: it is asked for every new module of every crash.
_NOT_ON_SIGHT: Final = KERNEL_MODULES.joined_with(GENERIC_MODULES)


def is_third_party(module: str) -> bool:
    """Say whether a module may be blamed on sight: named, not the kernel, not generic machinery."""
    return bool(module) and module not in _NOT_ON_SIGHT


def deliberate(evidence: Evidence) -> Blame | None:
    """A person asked for this crash: no module is to blame."""
    facts = bugcheck_facts(evidence.bugcheck)
    if not facts.deliberate:
        return None
    note = f"{evidence.bugcheck:#x} {facts.name} is asked for by a person, not a driver's crash"
    return Blame("", None, "deliberate", (note,))


def stated_module(evidence: Evidence) -> Blame | None:
    """The agent saw the whole dump: believe the module it names, unless it is the kernel or generic."""
    module = evidence.stated_module
    if not is_third_party(module):
        return None
    return Blame(module, _first_offset(evidence.frames, module), "stated_module", (f"the report names {module}",))


def fault_parameter(evidence: Evidence) -> Blame | None:
    """The bug check's parameter that holds the address at fault, where the code has one."""
    number = bugcheck_facts(evidence.bugcheck).fault_address
    return _on_sight(evidence.fault, f"parameter {number} of {evidence.bugcheck:#x}", "fault_parameter")


def context_pointer(evidence: Evidence) -> Blame | None:
    """The instruction pointer in the saved registers."""
    return _on_sight(evidence.context, "the saved instruction pointer", "context_pointer")


def exception_address(evidence: Evidence) -> Blame | None:
    """The address in the exception record."""
    return _on_sight(evidence.exception, "the exception record", "exception_address")


def first_frame(evidence: Evidence) -> Blame | None:
    """The first module on the stack that is neither the kernel nor generic."""
    for frame in evidence.frames:
        if is_third_party(frame.module):
            return _on_sight(frame, "the first frame of neither the kernel nor a framework", "first_frame")
    return None


def generic_module(evidence: Evidence) -> Blame | None:
    """A framework, port or class driver, when nothing but these and the kernel was seen."""
    for candidate in _candidates(evidence):
        if candidate.module in GENERIC_MODULES:
            note = f"{candidate.source} names {candidate.module}, which runs other drivers' code, and no other was seen"
            return Blame(candidate.module, candidate.offset, "generic_module", (note,))
    return None


def kernel(evidence: Evidence) -> Blame | None:
    """The kernel, when nothing else was seen at all."""
    for candidate in _candidates(evidence):
        if candidate.module in KERNEL_MODULES:
            note = f"only the kernel was seen, by {candidate.source}: {candidate.module} is where it surfaced, not why"
            return Blame(candidate.module, candidate.offset, "kernel", (note,))
    return None


RULES: Final[tuple[Rule, ...]] = (
    deliberate,
    stated_module,
    fault_parameter,
    context_pointer,
    exception_address,
    first_frame,
    generic_module,
    kernel,
)
_NOBODY: Final = Blame("", None, "nobody", ("no module was named and no address falls into a driver",))


def blame_of(evidence: Evidence) -> Blame:
    """Return the answer of the first rule that has one; an empty module if none has."""
    for rule in RULES:
        blame = rule(evidence)
        if blame is not None:
            return blame
    return _NOBODY


def _on_sight(frame: Frame | None, source: str, rule: str) -> Blame | None:
    if frame is None or not is_third_party(frame.module):
        return None
    return Blame(frame.module, frame.offset, rule, (f"{source} points to {frame}",))


def _first_offset(frames: Sequence[Frame], module: str) -> int | None:
    return next((frame.offset for frame in frames if frame.module == module), None)


def _candidates(evidence: Evidence) -> Iterator[_Candidate]:
    """Yield every module seen, the most telling source first."""
    if evidence.stated_module:
        offset = _first_offset(evidence.frames, evidence.stated_module)
        yield _Candidate(evidence.stated_module, offset, "the report")
    places = (
        (evidence.fault, "the bug check's parameter"),
        (evidence.context, "the saved instruction pointer"),
        (evidence.exception, "the exception record"),
    )
    for place, source in places:
        if place is not None:
            yield _Candidate(place.module, place.offset, source)
    for frame in evidence.frames:
        yield _Candidate(frame.module, frame.offset, "the stack")
