"""A browser for the tests of a file, and pages that have to keep quiet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.ml_board.browser import Pages, chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """No wider: while it is open, nothing else in this thread can run an event loop."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def pages(browser: Browser) -> Iterator[Pages]:
    """Pages may complain of nothing that the test has not announced."""
    pages = Pages(browser)
    yield pages
    problems = pages.problems
    pages.close()
    assert not problems, "\n".join(problems)
