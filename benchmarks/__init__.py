"""What we claim about speed, measured against what one would use instead; results in results/README.md.

    python -m benchmarks [--quick]       all that this machine can run, each in a process of its own
    python -m benchmarks.NAME [--quick]  one of them

Each compares its contenders in one run, in turns, prints its tables and keeps results/NAME_<device>.json.

    train_step, train_step_256, chain, digits     ours beside diffusers' network in PyTorch
    input_pipeline, checkpoints, cold_start       what is around them
    memory, devices                               what they need, and what sharing a batch costs

    timing.py       contenders in turns -> seconds; ratios
    hardware.py     the machine, and how fast it multiplies large matrices
    report.py       measurements -> JSON and Markdown
    command.py      the command line that all benchmarks share
    workloads.py    ours: configs, the train step
    torch_*.py      theirs: the same network in diffusers, its training, its chain
"""
