"""Why a request was refused, in one word that both ways of the protocol carry beside their own codes.

gRPC has one code for "busy" and "too large", and the same one for "draining" and "no such host"; the word tells them
apart. It goes as trailing metadata, or as a header, under `KEY`.
"""

from enum import Enum

KEY = "nas-reason"


class Reason(Enum):
    """Each with its word, gRPC's code and HTTP's status."""

    BUSY = ("busy", "RESOURCE_EXHAUSTED", 503)
    DRAINING = ("draining", "UNAVAILABLE", 503)
    UNAUTHENTICATED = ("unauthenticated", "UNAUTHENTICATED", 401)
    UNKNOWN = ("unknown", "NOT_FOUND", 404)
    TOO_LARGE = ("too-large", "RESOURCE_EXHAUSTED", 413)
    MALFORMED = ("malformed", "INVALID_ARGUMENT", 400)
    LATE = ("late", "DEADLINE_EXCEEDED", 504)
    FAILED = ("failed", "INTERNAL", 500)

    def __init__(self, word: str, grpc_code: str, http_status: int) -> None:
        self.word, self.grpc_code, self.http_status = word, grpc_code, http_status

    @classmethod
    def of_word(cls, word: str | None) -> "Reason | None":
        """The one that goes by a word; None where there is none."""
        return next((one for one in cls if one.word == word), None)
