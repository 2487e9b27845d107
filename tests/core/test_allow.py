"""A key's allow-list inside its sub-account's: never wider than either."""

from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from aigate.core.allow import narrow

PATTERNS = st.lists(st.text("ab/*?[]", min_size=1, max_size=5), max_size=4)
NAMES = st.text("ab/", min_size=1, max_size=6)


def allows(patterns, name):
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


@given(PATTERNS, PATTERNS, NAMES)
def test_what_both_allow_is_never_more_than_each_allows(outer, inner, name):
    if allows(narrow(outer, inner), name):
        assert allows(outer, name) and allows(inner, name)


def test_the_narrower_of_two_patterns_counts():
    assert narrow(["openai/*"], ["openai/gpt-*", "sim/echo"]) == ("openai/gpt-*",)
    assert narrow(["openai/gpt-5.4"], ["openai/*"]) == ("openai/gpt-5.4",)
    assert narrow([], ["a/*"]) == narrow(["a/*"], []) == ("a/*",)
    assert narrow([], []) == ()


def test_nothing_in_common_is_not_everything():
    assert not any(allows(narrow(["openai/*"], ["sim/*"]), name) for name in ("openai/x", "sim/x", "(none)/x"))
