"""One thread a process: the models are tiny, and threads that wait for each other cost more than they bring."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported, and by the processes tests start

import torch

torch.set_num_threads(1)
