"""``avmend report``: runs as one HTML file that needs no server, to send to a colleague."""

from tuning.report.command import main

__all__ = ["main"]
