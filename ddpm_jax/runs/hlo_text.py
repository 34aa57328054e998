"""Reads compiled programs in XLA's text form: what they exchange between chips, and move to and from their memory."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_COLLECTIVES = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
# An asynchronous one is two instructions, of which the second has the result.
_COLLECTIVE = re.compile(rf"= (.+?) ({_COLLECTIVES})(?:-done)?\(")
# Type, bits, shape, and the layout, which names the memory space unless that is the memory beside the chip.
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\[([\d,]*)\](\{[^}]*\})?")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^ +(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([a-z-]+)\((.*?)\)(?:, |$)(.*)")
_PART = re.compile(r"(?:calls|to_apply)=%?([\w.-]+)")  # computed within the instruction that names it
# They rename what there is, or hold instructions that are counted themselves.
_MOVES_NOTHING = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "conditional", "call",
    "opt-barrier",
)  # fmt: skip


class _Array(NamedTuple):
    bytes: int
    inside: bool  # the chip

    @property
    def moved(self) -> int:
        return 0 if self.inside else self.bytes


def collectives(program: str) -> dict[str, list[int]]:
    """Returns the bytes of the result of each collective of a program, by kind."""
    found: dict[str, list[int]] = {}
    for types, kind in _COLLECTIVE.findall(program):
        found.setdefault(kind, []).append(sum(array.bytes for array in _arrays(types)))
    return found


def hbm_bytes(program: str) -> int:
    """Returns how many bytes a program for a TPU reads from the memory beside the chip and writes there, at most.

    XLA's cost analysis counts the operands and results of all instructions. The compiler keeps most of them in the
    chip, and the layouts in the program say which: those count for nothing here. The body of a loop counts once, and an
    operand of which only a slice is read counts whole.

    Args:
        program: what `jax.stages.Compiled.as_text` returns.
    """
    parts = set(_PART.findall(program))
    return sum(
        _moved(instructions, *instruction)
        for name, instructions in _computations(program)
        if name not in parts
        for instruction in instructions.values()
    )


def _computations(program: str) -> Iterator[tuple[str, dict[str, tuple[str, str, str, str]]]]:
    """Yields each computation's name, and for each of its instructions the type, operation, operands and attributes."""
    name, instructions = "", {}
    for line in program.splitlines():
        if begins := _COMPUTATION.match(line):
            name, instructions = begins[1], {}
        elif line.startswith("}"):
            yield name, instructions
        elif found := _INSTRUCTION.match(line):
            instructions[found[1]] = found.groups()[1:]


def _moved(instructions: dict, types: str, operation: str, operands: str, attributes: str) -> int:
    if operation in _MOVES_NOTHING or operation.endswith("-done") or "ConcatBitcast" in attributes:
        return 0
    results = _arrays(types)
    if operation.endswith(("copy-start", "slice-start")):  # of both ends, and a semaphore
        ends = sorted(results, key=lambda array: array.bytes)[-2:]
        return sum(ends[0].bytes for end in ends if not end.inside)
    given = [name for name in re.findall(r"%([\w.-]+)", operands) if name in instructions]
    return sum(array.moved for array in results + [array for name in given for array in _arrays(instructions[name][0])])


def _arrays(types: str) -> list[_Array]:
    return [
        _Array(math.prod(map(int, filter(None, shape.split(",")))) * int(bits or 8) // 8, "S(" in layout)
        for _, bits, shape, layout in _ARRAY.findall(types)
    ]
