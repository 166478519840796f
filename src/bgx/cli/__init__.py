"""The door for shells: Click; the only rooms that print or exit."""

import os

# numpy's own threads would only wait beside bgx's; to start them takes longer than to import numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
