"""Values of `{name:Type}` parameters as the text that ClickHouse parses them from.

Used by the chdb store; over the network the driver does the same. ClickHouse reads a parameter as it reads a field of a
tab-separated file: backslash escapes and all.
"""

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0", "'": "\\'"})


def parameter_text(value: object) -> str:
    """Return the text of one parameter: a string with its escapes, a list as an array's literal, None as NULL."""
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    if value is None:
        return "\\N"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_element(one) for one in value) + "]"
    return str(value)


def _element(value: object) -> str:
    if isinstance(value, str):
        return f"'{value.translate(_ESCAPES)}'"
    return "NULL" if value is None else parameter_text(value)
