"""The program: every command, put together from ``stream.commands``.

Nothing heavy is imported here: torch, numba and astropy are loaded by the commands that need them, so that ``--help``
answers at once.
"""

from __future__ import annotations

import typer

from stream.commands import accounts, classes, demo, files, linking, replaying, reports, streaming, watching

app = typer.Typer(
    name="needlestream",
    help="Full CCD frames in from Kafka, asteroid streaks out, near real time; archives through the same code.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
streaming.register(app)
replaying.register(app)
accounts.register(app)
files.register(app)
linking.register(app)
classes.register(app)
reports.register(app)
demo.register(app)
watching.register(app)
