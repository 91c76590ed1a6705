"""`make bench`: one benchmark after the other, each in its own process, one JSON object with all at the end.

An hour on two cores. `python -m bench median writer` runs only those; what takes longer runs only when it is named.
"""

import json
import subprocess
import sys
from typing import Any

# name -> about how many minutes on two cores
BENCHES = {
    "screen": 14,
    "chain": 6,
    "median": 2,
    "writer": 6,
    "heldout": 8,
    "preprocess": 1,
    "segment": 1,
    "v_score": 8,
    "service": 3,
    "micromanager": 1,
    "watch": 4,
    "soak": 4,
    "page": 2,
    "notebook": 1,
    "recordings": 4,
    "dose_response": 6,
    "quality": 3,
    "report": 3,
    "screen_rows": 3,
    "growth": 4,
    "sim": 8,
}
LONG = {"compound_screen": 60}


def main() -> None:
    chosen = sys.argv[1:] or list(BENCHES)
    if unknown := set(chosen) - BENCHES.keys() - LONG.keys():
        sys.exit(f"no such benchmark: {', '.join(sorted(unknown))}; there are: {', '.join(BENCHES | LONG)}")
    figures: dict[str, Any] = {}
    for name in chosen:
        print(f"{name}: about {(BENCHES | LONG)[name]} min ...", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, "-m", f"bench.{name}"], stdout=subprocess.PIPE, text=True, check=False)
        figures[name] = json.loads(done.stdout) if done.returncode == 0 else f"failed with exit code {done.returncode}"
        print(json.dumps({name: figures[name]}, indent=1), file=sys.stderr, flush=True)
    print(json.dumps(figures, indent=1))
    sys.exit(any(isinstance(found, str) for found in figures.values()))


if __name__ == "__main__":
    main()
