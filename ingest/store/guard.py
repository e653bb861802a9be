"""What the read-only endpoint refuses by reading the text, because the engine's own read-only mode lets it through.

The engine refuses writes, changes of settings and most table functions by itself (`readonly = 1`). Tried against
ClickHouse 26.9 in process, that mode still lets through: `INTO OUTFILE` (the client side writes it), the function
`file()`, `DESCRIBE` of a table function, several statements at once, `USE` and `KILL QUERY`. Those are refused here,
before the engine sees them. The invariant: when the text is not understood with certainty, it is refused.
"""

import re
from typing import Final, NamedTuple

from ingest.store.interface import StoreError

# ClickHouse's own code for "cannot execute query in readonly mode".
READONLY: Final = 164
QUERY_CHARS_MAX: Final = 65_536
FIRST_WORDS: Final = frozenset({"select", "with", "show", "describe", "desc", "explain", "exists"})
FORBIDDEN_WORDS: Final = frozenset({"outfile", "infile"})
# Refused wherever they stand, not only before a bracket: `SELECT * APPLY(file)` calls a function by its bare name.
FORBIDDEN_NAMES: Final = frozenset({
    "file", "catboostevaluate", "sleep", "sleepeachrow", "addresstoline", "addresstolinewithinlines",
    "addresstosymbol", "demangle", "encrypt", "aes_encrypt_mysql", "getserversetting", "getoskernelversion",
    "getmacro", "filesystemavailable", "filesystemcapacity", "filesystemunreserved",
})  # fmt: skip
# Table functions that reach nothing outside the database; any other, known or not, is refused by `Guard`.
HARMLESS_TABLE_FUNCTIONS: Final = frozenset({
    "numbers", "numbers_mt", "zeros", "zeros_mt", "generateseries", "generate_series", "primes", "values", "null",
    "view", "format", "merge", "generaterandom", "sqlstandardvalues",
})  # fmt: skip

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<comment>--[^\n]*|/\*.*?\*/)
  | (?P<string>'(?:[^'\\]|\\.|'')*')
  | (?P<name>`[^`\\]+`|"[^"\\]+")
  | (?P<number>(?:0x[0-9a-fA-F]+|[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_]))
  | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<sign>[-+*/%=<>!?:,.()\[\]{};|&^~@])
    """,
    re.VERBOSE | re.DOTALL,
)


class RefusedError(StoreError):
    """The query is not one that the read-only endpoint runs."""

    def __init__(self, message: str) -> None:
        super().__init__(f"Code: {READONLY}. {message} (READONLY)", READONLY)


class _Token(NamedTuple):
    kind: str
    text: str


def _tokens(sql: str) -> list[_Token]:
    """Return the tokens without spaces and comments.

    Raises:
        RefusedError: a character outside strings that ClickHouse may read differently than this lexer.
    """
    tokens, at = [], 0
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None:
            raise RefusedError(f"cannot read {sql[at]!r} at character {at} of the query: use plain SQL")
        kind = str(match.lastgroup)
        if kind not in ("space", "comment"):
            tokens.append(_Token(kind, match.group().strip('`"') if kind == "name" else match.group()))
        at = match.end()
    return tokens


class Guard:
    """Lets queries through that only read the database.

    Attributes:
        refused_calls: table functions that are refused, in lower case.
    """

    def __init__(self, table_functions: frozenset[str]) -> None:
        """Refuse all of the engine's `table_functions` that are not known to be harmless."""
        lower = frozenset(name.lower() for name in table_functions)
        self.refused_calls = lower - HARMLESS_TABLE_FUNCTIONS

    def check(self, sql: str) -> str:
        """Return the one statement in `sql`, without a final semicolon.

        Raises:
            RefusedError: it is none, more than one, too long, or may do more than read.
        """
        if len(sql) > QUERY_CHARS_MAX:
            raise RefusedError(f"the query has {len(sql)} characters, {QUERY_CHARS_MAX} are allowed")
        if "\0" in sql:
            raise RefusedError("the query holds a NUL character")
        text = re.sub(r"[\s;]+\Z", "", sql)
        tokens = _tokens(text)
        first = next((token for token in tokens if token.text != "("), None)
        if first is None:
            raise RefusedError("there is no query: send one as the parameter `query` or as the body of a POST")
        if first.kind != "word" or first.text.lower() not in FIRST_WORDS:
            raise RefusedError(
                f"this endpoint only reads: {first.text[:40]!r} is none of {', '.join(sorted(FIRST_WORDS))}"
            )
        for token, after in zip(tokens, [*tokens[1:], _Token("end", "")], strict=True):
            word = token.text.lower()
            if token.text == ";":
                raise RefusedError("one statement at a time")
            if token.kind == "word" and word in FORBIDDEN_WORDS:
                raise RefusedError(f"{token.text.upper()} would reach a file: this endpoint only reads the database")
            if token.kind in ("word", "name") and word in FORBIDDEN_NAMES:
                raise RefusedError(f"{token.text} reaches outside the database: this endpoint only reads it")
            if token.kind in ("word", "name") and after.text == "(" and word in self.refused_calls:
                raise RefusedError(f"{token.text}() reaches outside the database: this endpoint only reads it")
        return text
