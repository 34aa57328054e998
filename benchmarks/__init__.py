"""How fast this project is, measured beside what one would use instead; results in results/README.md.

    python -m benchmarks [--quick]       all that this machine can run, each in a process of its own
    python -m benchmarks.NAME [--quick]  one of them

Each runs its contenders in turns, prints its tables and writes results/NAME_<device>.json.

    train_step, train_step_256, chain, digits     compared with diffusers' network in PyTorch
    input_pipeline, checkpoints, cold_start       reading images, saving, starting
    memory, devices                               memory of a train step; the cost of splitting a batch over devices

    timing.py       contenders in turns -> seconds; ratios
    hardware.py     the machine, and how fast it multiplies large matrices
    report.py       measurements -> JSON and Markdown
    command.py      the command line that all benchmarks share
    workloads.py    our experiments and our train step
    torch_*.py      the same network in diffusers, its training and its chain
"""
