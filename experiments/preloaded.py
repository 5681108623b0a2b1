"""The last thing that the server of stages imports: what is loaded by then stays out of garbage collections.

A stage forked from it would otherwise look through half a million objects of libraries, and copy their memory
pages, whenever it collects: transformers does so at the start of every training.
"""

import atexit
import gc

gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)  # libraries count at the end what was not collected
