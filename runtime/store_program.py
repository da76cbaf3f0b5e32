"""The program that `store_start` executes: it loads the engine before all other libraries.

While the engine loads, it reads the kernel's auxiliary vector: from ``/proc/self/auxv``, or if it cannot open that,
from the memory behind the environment. Once a variable has been set, as some libraries do, something else is
there, and the engine can crash.
"""

import chdb  # noqa: F401 - see above

from ..base.imports import without_pandas
from .store_process import main

if __name__ == "__main__":
    without_pandas()
    main()
