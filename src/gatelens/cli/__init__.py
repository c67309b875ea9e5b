"""The command: one verb a room, thin over the library."""

from .main import main as main
