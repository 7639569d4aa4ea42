import torch
from hypothesis import settings

# One thread: results do not depend on the machine's cores, and small tensors are faster.
torch.set_num_threads(1)

# Every run tries the same examples, and a slow machine is no failure.
settings.register_profile("statecast", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("statecast")
