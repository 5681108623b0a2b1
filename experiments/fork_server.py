"""Imported by the server that stages are forked from, before all else.

A signal to all processes of a job must not end the server: it alone can tell how its children end. It
leaves when the process that started it does.
"""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
