"""What the server answers to a request that it does not fulfil. Imports nothing of ours."""

from __future__ import annotations


class Refusal(Exception):
    """A request is refused with an HTTP status and a message that says what was expected."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
