"""How the threads of several libraries share a processor. To be imported before torch and numpy, which look once."""

import os

# by default threads that wait for work go on running, and take the time of the detector's, the reader's and the
# drawer's: OpenMP's, of torch, and OpenBLAS's, of numpy, where 4 is the shortest wait, 2**4 cycles
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    # but for some microseconds, since between two parts of a step to sleep at once costs a tenth of it
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
