"""The words tokenizer counts the same whoever counts, and however the text was cut."""

from hypothesis import given
from hypothesis import strategies as st

from aigate.core.words import count_words, message_texts

texts = st.text(alphabet=st.sampled_from("ab é\n\t\u00a0\u2003\x1c.") | st.characters(exclude_categories=("Cs",)))


def test_a_token_is_a_run_of_non_space_characters():
    assert count_words("") == count_words(" \n\t") == 0
    assert count_words("one") == count_words("  one \n") == 1
    assert count_words('{"city": "Paris"}') == 2


@given(texts)
def test_tokens_never_exceed_utf8_bytes(text):
    assert count_words(text) <= len(text.encode())


def test_what_counts_of_a_prompt_is_its_texts():
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": '{"at": 1}'}}]},
    ]
    assert message_texts(messages) == ["be brief", "what is this", '{"at": 1}']


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["content", "text", "tool_calls", "function", "arguments"]), inner)))  # fmt: skip
def test_messages_of_any_shape_can_be_read(value):
    assert isinstance(message_texts([{"content": value, "tool_calls": value}]), list)
