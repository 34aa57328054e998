"""The commands: flags in, library calls out."""

import signal
import threading

# Ctrl-C while the libraries are imported, or XLA compiles, ends a command as it ends any other program. Python's own
# handler would raise in the midst of them. Work that has something to save handles it: see runtime.signals.
if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
