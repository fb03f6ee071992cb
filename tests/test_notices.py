"""What the library logs while a command runs."""

import logging

from sjd_pipelines.cli.notices import MOST_NOTICES, logged_once

LOGGER = logging.getLogger("sjd_pipelines.pipelines.words")


def test_each_message_is_a_line_once_and_many_come_to_an_end(capsys):
    with logged_once():
        for number in (*range(MOST_NOTICES), 0, *range(MOST_NOTICES + 5)):
            LOGGER.warning("word %s", number)
        LOGGER.info("nobody asked")
    LOGGER.warning("after")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:MOST_NOTICES] == [f"sjd: word {number}" for number in range(MOST_NOTICES)]
    assert [line for line in lines[MOST_NOTICES:] if line.startswith("sjd")] == [
        "sjd: more was logged, which is not shown"
    ]
