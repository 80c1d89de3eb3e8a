"""What the Python scripts beside this share: how they are called, and how they complain."""

import sys
import threading

# For what must happen soon. The script as a whole has a deadline too.
SOON = 15


def address():
    """The member's host and port, which the test gives."""
    return sys.argv[1], int(sys.argv[2])


def same(what, seen, expected):
    """Ends the script where something else was seen than expected."""
    if seen != expected:
        raise SystemExit(f"{what}: expected {expected!r}, saw {seen!r}")


def true(what, seen):
    """Ends the script where something does not hold."""
    if not seen:
        raise SystemExit(f"{what}: saw {seen!r}")


def refused(what, kind, call):
    """Calls what must be refused, and returns the error."""
    try:
        seen = call()
    except kind as error:
        return error
    raise SystemExit(f"{what}: expected {kind.__name__}, saw {seen!r}")


def beside(call):
    """Starts something that waits; the function that is returned waits for its result."""
    box = []
    thread = threading.Thread(target=lambda: box.append(call()), daemon=True)
    thread.start()

    def result(what):
        thread.join(SOON)
        if not box:
            raise SystemExit(f"{what}: nothing after {SOON} s")
        return box[0]

    return result


def taken(what, iterator, count):
    """The next items of an iterator that waits for them."""
    return beside(lambda: [next(iterator) for _ in range(count)])(what)


def run(*steps):
    """Does one after the other; what stops it has the step's name before it."""
    for step in steps:
        print(step.__name__, flush=True)
        step()
    print("end")
