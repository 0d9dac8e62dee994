"""What a PromQL expression compares, taken apart: a rule that does not fire gives nothing, its operands always do."""

import re

COMPARISON = re.compile(r"==|!=|<=|>=|<|>")
CONNECTIVE = re.compile(r"\b(and|or|unless)\b")
ABSENT = re.compile(r"absent\((.*)\)", re.DOTALL)


def operands(expression):
    """The parts of an expression that ask for series, without comparisons and what connects them."""
    absent = ABSENT.fullmatch(expression.strip())
    parts = [absent[1]] if absent else [expression]
    for pattern in (CONNECTIVE, COMPARISON):
        parts = [piece for part in parts for piece in split_outside_brackets(part, pattern)]
    return [part.strip() for part in parts if re.search(r"[a-z]", part)]


def split_outside_brackets(text, pattern):
    """The pieces of a text between the places, outside all brackets, where a pattern is."""
    pieces, start, place, depth = [], 0, 0, 0
    while place < len(text):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        found = pattern.match(text, place) if depth == 0 else None
        if found:
            pieces.append(text[start:place])
            start = place = found.end()
        else:
            place += 1
    return [*pieces, text[start:]]
