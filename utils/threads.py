"""How the threads of several libraries share a processor. To be imported before torch, whose OpenMP looks once."""

import os

# by default threads of OpenMP that wait for work go on running, and take the time of the detector's and the reader's
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
