"""The command line: speaks to a person, and to scripts by exit codes and ``--json``.

Needs the extra ``cli`` (click and rich); only `sendengine.cli.main` may be imported without it.
"""
