"""Test cases of other projects that do not apply to our history, each with the reason.

Each of them runs and must fail. Remove one that passes.
"""

from __future__ import annotations

from typing import Final

EXCLUDED: Final = {
    "langchain-core": {
        "test_chat_history_deprecated[InMemoryChatMessageHistory]": (
            "looks for a deprecation notice in the docstring of InMemoryChatMessageHistory; our class is not deprecated"
        ),
    },
    "langchain-community": {
        "test_model_no_session_id_field_error": (
            "hands in a SQLAlchemy model in place of the table; the table of our transcripts is not the caller's"
        ),
        "test_tidb_recent_chat_message": (
            "reads messages since a point in time (earliest_time); ours returns the last so many, by count or tokens"
        ),
    },
    "langchain-postgres": {},
}

NOT_TAKEN: Final = {
    "langchain-community": {
        "unit_tests/chat_message_histories/test_imports.py": "lists the modules of langchain-community",
        "unit_tests/chat_message_histories/test_dynamodb_chat_message_history.py": (
            "looks at the items of a mocked DynamoDB table"
        ),
        "integration_tests/chat_message_histories/test_zep.py": "looks at the calls of a mocked Zep client",
        "integration_tests/chat_message_histories/test_streamlit.py": "runs a Streamlit app",
        "integration_tests/memory/": "tests ConversationBufferMemory, which LangChain 1 no longer has",
    },
}
"""Files that are not run: no test in them applies to our history."""
