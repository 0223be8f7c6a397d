"""How the threads of several libraries share a processor. To be imported before torch and numpy, which look once."""

import os

# by default threads that wait for work go on running, and take the time of the detector's, the reader's and the
# drawer's: OpenMP's, of torch, and OpenBLAS's, of numpy, where 4 is the shortest wait, 2**4 cycles
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
