"""The type of an image's values. By itself, because whoever only names stacks has no time to import numpy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.unsignedinteger[Any]]  # uint8 or uint16
