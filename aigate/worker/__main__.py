"""`python -m aigate.worker`: one data-plane process, started by the supervisor."""

import sys

from aigate.worker.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
