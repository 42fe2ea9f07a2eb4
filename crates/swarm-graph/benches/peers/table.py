"""Reads measurements, one JSON object a line, and prints them beside each other with ratios."""

import json
import sys

OURS = "swarm-graph"
PEERS = ["LangGraph Python", "LangGraph JavaScript"]


def main():
    rates = {}
    for line in sys.stdin:
        if line.startswith("{"):
            found = json.loads(line)
            place = (found["workload"], found["store"])
            rates.setdefault(place, {})[found["engine"]] = found["steps_per_second"]
    print(f"{'steps/s':<24}{'':<15}{OURS:>12}{'Python':>12}{'JavaScript':>12}{'ratio':>9}")
    for (workload, store), found in rates.items():
        row = f"{workload:<24}{store:<15}"
        for engine in [OURS, *PEERS]:
            row += f"{found[engine]:>12.0f}" if engine in found else f"{'-':>12}"
        peers = [found[engine] for engine in PEERS if engine in found]
        if OURS in found and peers:
            row += f"{found[OURS] / max(peers):>8.1f}x"
        print(row)
    print("ratio: to the faster of the two, at the same durability")


if __name__ == "__main__":
    main()
