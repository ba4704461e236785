"""
Verifies answers for `verify.py`, a line for each line it reads; run as a script, and killed when it takes too long.

math-verify's own time limits are signals, which turn a timeout into "not equal" without a word. Here they are off, as
always outside the main thread, and the process that started this one keeps the time.
"""

import ctypes
import json
import resource
import signal
import sys
import threading
from pathlib import Path

_MEMORY = 4 << 30  # bytes of address space
_PR_SET_PDEATHSIG = 1


def serve() -> None:
    """Answer requests until there are no more. Nothing but answers may reach standard output."""
    answers, sys.stdout = sys.stdout, sys.stderr
    # Whoever asked may be killed in the middle of an endless comparison.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A tower of powers can ask for more memory than there is before its time is over.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    sys.path[0] = str(Path(__file__).parents[2])  # where the package lies, not the folder of this script
    from repro_trl.verifier import answer_vote, verify_answer

    verify_answer(r"\boxed{0.5}", r"\frac{1}{2}", None)  # the first comparison takes a second
    print(json.dumps({"outcome": "ready"}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            right = verify_answer(request["conclusion"], request["answer"], None)
            vote = answer_vote(request["conclusion"])
            outcome = "right" if right else "wrong" if vote is not None else "no answer"
            answer = {"outcome": outcome, "vote": vote, "detail": ""}
        except Exception as error:
            answer = {"outcome": "failure", "vote": None, "detail": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
