from hypothesis import given
from hypothesis import strategies as st

from aigate.core.call import Warning
from aigate.core.warnings import LIMIT_CHARS, warning_header


def test_items_are_written_as_documented():
    dropped = Warning("dropped", "logit_bias", "unsupported")
    clamped = Warning("clamped", "max_tokens", "budget", 4096, 512)
    assert warning_header([dropped, clamped]) == (
        'dropped;param="logit_bias";reason="unsupported", clamped;param="max_tokens";from=4096;to=512;reason="budget"'
    )


def test_decimals_are_structured_field_decimals():
    assert 'from=2.0;to=0.01' in warning_header([Warning("clamped", "temperature", "r", 2.0, 0.01)])


@given(st.lists(st.text(), max_size=200))
def test_never_splits_a_head_and_never_grows_past_its_limit(names):
    header = warning_header([Warning("dropped", name, "unsupported") for name in names])
    assert len(header) <= LIMIT_CHARS
    assert all(" " <= char <= "~" for char in header)


def test_says_how_many_did_not_fit():
    header = warning_header([Warning("dropped", "x" * 190, "unsupported")] * 100)
    assert header.rsplit("more;count=", 1)[1].isdigit()
