"""Medians of the criterion benchmark of plans, beside what is allowed.

Usage: bench_plans.py CRITERION_FOLDER TABLE
"""

import json
import pathlib
import sys

# Milliseconds that the median may take; what is not named is only reported.
ALLOWED = {
    "cold/gpt2_prefill_static": 2.0,
    "warm/gpt2_prefill_static": 0.1,
    "warm/llama3.1_70b_decode": 1.0,
}


def main() -> int:
    folder, table = map(pathlib.Path, sys.argv[1:])
    rows, missed = [], 0
    for kind in ("cold", "warm", "warm with request"):
        for model in ("gpt2_prefill_static", "llama3.1_70b_decode"):
            name = f"{kind}/{model}"
            # Criterion puts what is not a plain name into folders of its own spelling.
            found = folder / name.replace("/", "_") / "new" / "estimates.json"
            if not found.exists():
                found = folder / kind / model / "new" / "estimates.json"
            if not found.exists():
                rows.append(f"| {name} | not measured | {ALLOWED.get(name, '–')} | |")
                continue
            median = json.loads(found.read_text())["median"]["point_estimate"] / 1e6
            allowed = ALLOWED.get(name)
            good = allowed is None or median <= allowed
            missed += not good
            rows.append(f"| {name} | {median:.4f} | {allowed or '–'} | {'' if good else 'too slow'} |")
    text = "| what | median, ms | allowed, ms | |\n|---|---:|---:|---|\n" + "\n".join(rows) + "\n"
    table.write_text(text)
    print(text, end="")
    return 1 if missed else 0


sys.exit(main())
