"""What a hit, a miss and a store cost, against peers in the same run: `python -m benchmarks`.

Law of this package: absolute figures move with the machine, so every goal is a ratio of two subjects measured in the
same round. Each subject lives in a process of its own; batches are short and their order is shuffled in each round.
Every hit is proved: the application's call counter stands still and the body is the one that the application sent.
"""
