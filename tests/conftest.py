"""Ctrl-C reaches what tests start: a shell's background jobs ignore it, and whoever they start would inherit that."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
