"""The least work of operations without an estimate of the compiler: bytes moved, and matmul operations."""

import math
import re

from mrcnn_jax.compile_report.hlo import Operation, Program

_SMALL_READS = {"gather", "slice", "dynamic-slice"}
_SMALL_WRITES = {"scatter", "dynamic-update-slice"}


def moved_bytes(program: Program, op: Operation) -> int:
    """Bytes of the operands and the result; of arrays that are read or changed in a few places, only these.

    An operation that gathers reads at most four values of each operand (of a bilinear sample) per value of
    its result; one that scatters reads and writes what its updates touch.
    """
    opcodes = {part.opcode for part in program.parts(op)}
    result = op.arrays[0].bytes if op.opcode == "custom-call" else op.bytes  # without its workspace
    operands = [program.by_name[name].bytes for name in op.operands if name in program.by_name]
    if opcodes & _SMALL_WRITES and operands:
        updates = sum(size for size in operands if size < result)
        return 3 * updates
    if opcodes & _SMALL_READS:
        operands = [min(size, 4 * result) for size in operands]
    return result + sum(operands)


def matmul_operations(program: Program, op: Operation) -> float:
    """Multiplications and additions of the matmuls and convolutions in an operation of a GPU."""
    return sum(_operations(program, part) for part in program.parts(op))


def _operations(program: Program, op: Operation) -> float:
    operands = [program.by_name[name].arrays[0].shape for name in op.operands if name in program.by_name]
    if op.opcode == "dot" or re.search("gemm|matmul", op.target):
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", op.attributes)
        axes = contracted[1].split(",") if contracted else _contracted(op)
        return 2.0 * math.prod(op.arrays[0].shape) * math.prod(operands[0][int(a)] for a in axes if a)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", op.attributes)
    if labels is None or len(operands) < 2:
        return 0.0
    image, kernel, result = operands[0], operands[1], op.arrays[0].shape
    if "BackwardInput" in op.target:  # (gradient of the output, kernel) to the gradient of the input
        result = image
    elif "BackwardFilter" in op.target:  # (input, gradient of the output) to the gradient of the kernel
        kernel, result = result, kernel
    outputs = kernel[labels[2].index("o")]
    return 2.0 * math.prod(result) * math.prod(kernel) / outputs


def _contracted(op: Operation) -> list[str]:
    numbers = op.config.get("gemm_backend_config", {}).get("dot_dimension_numbers", {})
    return numbers.get("lhs_contracting_dimensions", [])
