"""The command line. Only these modules use Click, print, and exit."""

import os

# numpy's own threads would compete with bgx's, and starting them takes longer than importing numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
