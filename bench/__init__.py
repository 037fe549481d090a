"""How fast, against the tools that people use instead, side by side in one run: `python -m bench`.

One file per question. Each checks its own work (exit codes, bytes) and its time is void otherwise; peers that are
installed run interleaved with us; medians and ratios are quoted, and the spread is shown.
"""
