"""Child processes for tests: forked without a new interpreter, and never waited for without an end."""

import os
import signal
import time
import traceback

TIMEOUT_S = 60.0


def fork(work):
    """Runs ``work()`` in a child without starting an interpreter; its return value is the exit code."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = work()
        except SystemExit as error:
            code = error.code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def wait(pid, timeout_s=TIMEOUT_S):
    """Exit code of a child, negative for a signal; the child is killed when it takes too long."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"pid {pid} did not end within {timeout_s} s")


def until(condition, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.002)
