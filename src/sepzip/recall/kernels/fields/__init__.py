"""What a lane knows before a byte, hashed for its contexts, and its matches: the twin of memory.c."""

from .contexts import context_hashes, used_fields
from .hashes import finished
from .instructions import correction_of, follow_instruction
from .lane_state import take_in
from .match import begin_match, end_match, go_on_with_match

__all__ = [
    "begin_match",
    "context_hashes",
    "correction_of",
    "end_match",
    "finished",
    "follow_instruction",
    "go_on_with_match",
    "take_in",
    "used_fields",
]
