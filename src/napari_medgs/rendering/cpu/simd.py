"""Vector instructions for the CPU kernels, written as LLVM IR through numba.

LLVM does not vectorize the short, masked rows of a Gaussian by itself; explicit vectors are about
three times faster and need no compiler on the user's machine. The lane count fits the widest
vector unit; LLVM splits the vectors where the hardware has a narrower one.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

FLOAT = ir.FloatType()
INT = ir.IntType(32)
CONTRACT = ("contract",)

# Minimax polynomial of 2^f on [-1/2, 1/2], relative error 2.4e-7.
EXP2 = (1.0, 0.693147182, 0.240226462, 0.0555032548, 0.00961834099, 0.00133986268)
ROUND_MAGIC = 12582912.0  # 1.5 * 2^23: adding it rounds a float to an integer in its low bits


# AVX-512 has the rounding, the power of two and the mask as single instructions, which is worth
# more than what sixteen lanes waste on rows of 5 to 9 voxels; elsewhere eight lanes are faster.
# numba may be told to compile for another processor (NUMBA_CPU_NAME): that must hold here too.
WIDE = config.CPU_NAME is None and bool(llvm.get_host_cpu_features().get("avx512f"))
LANES = 16 if WIDE else 8
ALIGNED = 4 * LANES  # bytes: a vector on the stack
VECTOR = ir.VectorType(FLOAT, LANES)
INTS = ir.VectorType(INT, LANES)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(VECTOR, [float(np.float32(value))] * LANES)


def _integers(value: int) -> ir.Constant:
    return ir.Constant(INTS, [value] * LANES)


def _broadcast(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), scalar, ir.Constant(INT, 0))
    zeros = ir.Constant(INTS, [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(VECTOR, ir.Undefined), zeros)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b, flags=CONTRACT), c, flags=CONTRACT)


def _exp2(builder: Any, exponent: Any) -> Any:
    magic = _constant(ROUND_MAGIC)
    shifted = builder.fadd(exponent, magic)
    fraction = builder.fsub(exponent, builder.fsub(shifted, magic))
    result = _constant(EXP2[5])
    for coefficient in EXP2[4::-1]:
        result = _multiply_add(builder, result, fraction, _constant(coefficient))
    power = builder.shl(builder.bitcast(shifted, INTS), _integers(23))
    return builder.bitcast(builder.add(builder.bitcast(result, INTS), power), VECTOR)


def _wide_exp2(builder: Any, exponent: Any, inside: Any) -> Any:
    """2^exponent where ``inside``, else zero, with AVX-512's own instructions."""
    module = builder.module
    half = ir.IntType(16)
    rint = cgutils.get_or_insert_function(
        module, ir.FunctionType(VECTOR, [VECTOR]), f"llvm.rint.v{LANES}f32"
    )
    scale = cgutils.get_or_insert_function(
        module,
        ir.FunctionType(VECTOR, [VECTOR, VECTOR, VECTOR, half, INT]),
        "llvm.x86.avx512.mask.scalef.ps.512",
    )
    whole = builder.call(rint, [exponent])
    fraction = builder.fsub(exponent, whole)
    result = _constant(EXP2[5])
    for coefficient in EXP2[4::-1]:
        result = _multiply_add(builder, result, fraction, _constant(coefficient))
    mask = builder.bitcast(inside, half)
    as_set = ir.Constant(INT, 4)  # the rounding mode that is set
    return builder.call(scale, [result, whole, _constant(0.0), mask, as_set])


def _gaussian(builder: Any, first: Any, curvature: Any, top: Any, bottom: Any) -> tuple[Any, Any]:
    """Offsets u = first + lane and 2^(top - curvature u^2), zero below 2^bottom."""
    lane = ir.Constant(VECTOR, [float(k) for k in range(LANES)])
    u = builder.fadd(_broadcast(builder, first), lane)
    scaled = builder.fmul(u, _broadcast(builder, builder.fneg(curvature)), flags=CONTRACT)
    exponent = _multiply_add(builder, scaled, u, _broadcast(builder, top))
    inside = builder.fcmp_ordered(">=", exponent, _broadcast(builder, bottom))
    if WIDE:
        return u, _wide_exp2(builder, exponent, inside)
    return u, builder.select(inside, _exp2(builder, exponent), _constant(0.0))


def _load(builder: Any, pointer: Any, align: int = 4) -> Any:
    return builder.load(builder.bitcast(pointer, VECTOR.as_pointer()), align=align, typ=VECTOR)


def _store(builder: Any, value: Any, pointer: Any, align: int = 4) -> None:
    builder.store(value, builder.bitcast(pointer, VECTOR.as_pointer()), align=align)


def _element(builder: Any, pointer: Any, index: Any) -> Any:
    return builder.gep(pointer, [index], source_etype=FLOAT)


def _array_data(context: Any, builder: Any, ty: Any, value: Any) -> Any:
    return context.make_array(ty)(context, builder, value).data


@intrinsic
def stack_vectors(typingctx: Any, count: Any) -> Any:
    """Reserve ``count`` (a literal) vectors on the stack; LLVM keeps them in registers."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    n = count.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        with builder.goto_entry_block():
            slot = builder.alloca(ir.ArrayType(VECTOR, n))
            slot.align = 64
        return builder.bitcast(slot, FLOAT.as_pointer())

    return types.CPointer(types.float32)(count), codegen


@intrinsic
def clear_vector(typingctx: Any, pointer: Any, index: Any) -> Any:
    """Set vector number ``index`` behind ``pointer`` to zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        offset = builder.mul(args[1], ir.Constant(args[1].type, LANES))
        _store(builder, _constant(0.0), _element(builder, args[0], offset), ALIGNED)
        return context.get_dummy_value()

    return types.void(pointer, index), codegen


@intrinsic
def spread_vector(typingctx: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Set all lanes of vector number ``index`` behind ``pointer`` to ``value``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        offset = builder.mul(args[1], ir.Constant(args[1].type, LANES))
        _store(builder, _broadcast(builder, args[2]), _element(builder, args[0], offset), ALIGNED)
        return context.get_dummy_value()

    return types.void(pointer, index, types.float32), codegen


@intrinsic
def sum_vector(typingctx: Any, pointer: Any, index: Any) -> Any:
    """Return the sum of the lanes of vector number ``index`` behind ``pointer``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        offset = builder.mul(args[1], ir.Constant(args[1].type, LANES))
        total = _load(builder, _element(builder, args[0], offset), ALIGNED)
        width = LANES
        while width > 1:
            width //= 2
            half = ir.Constant(INTS, [k + width if k < width else 0 for k in range(LANES)])
            folded = builder.shuffle_vector(total, ir.Constant(VECTOR, ir.Undefined), half)
            total = builder.fadd(total, folded)
        return builder.extract_element(total, ir.Constant(INT, 0))

    return types.float32(pointer, index), codegen


@intrinsic
def splat_block(
    typingctx: Any,
    buffer: Any,
    start: Any,
    stride: Any,
    first: Any,
    curvature: Any,
    top: Any,
    bottom: Any,
    values: Any,
    channels: Any,
) -> Any:
    """Add one row block of a Gaussian to ``channels`` (a literal) rows and the weight's row.

    ``buffer`` is a flat float32 array; channel c's row starts at ``start + c * stride`` and the
    weight's row follows the last channel's. ``values`` are broadcast vectors of the channels.
    """
    if not isinstance(channels, types.IntegerLiteral):
        return None
    count = channels.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = _array_data(context, builder, signature.args[0], args[0])
        _, g = _gaussian(builder, *args[3:7])
        row = _element(builder, data, args[1])
        for c in range(count):
            value = _load(
                builder, _element(builder, args[7], ir.Constant(INT, c * LANES)), ALIGNED
            )
            _store(builder, _multiply_add(builder, g, value, _load(builder, row)), row)
            row = _element(builder, row, args[2])
        _store(builder, builder.fadd(g, _load(builder, row)), row)
        return context.get_dummy_value()

    f = types.float32
    return (
        types.void(buffer, types.int64, types.int64, f, f, f, f, values, channels),
        codegen,
    )


@intrinsic
def gather_block(
    typingctx: Any,
    residual: Any,
    start: Any,
    stride: Any,
    first: Any,
    curvature: Any,
    top: Any,
    bottom: Any,
    dy: Any,
    values: Any,
    moments: Any,
    channels: Any,
) -> Any:
    """Add one row block's products of Gaussian and residual to the moments.

    Vectors 0 .. channels-1 of ``moments`` sum g h_c; the six after them sum e, e u, e u^2, e dy,
    e u dy and e dy^2 with e = g (h_w + sum_c v_c h_c), h the residual rows (weight's row last).
    """
    if not isinstance(channels, types.IntegerLiteral):
        return None
    count = channels.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = _array_data(context, builder, signature.args[0], args[0])
        u, g = _gaussian(builder, *args[3:7])
        height = _broadcast(builder, args[7])

        def accumulate(index: int, a: Any, b: Any) -> None:
            slot = _element(builder, args[9], ir.Constant(INT, index * LANES))
            _store(
                builder, _multiply_add(builder, a, b, _load(builder, slot, ALIGNED)), slot, ALIGNED
            )

        row = _element(builder, data, args[1])
        rows = []
        for _ in range(count + 1):
            rows.append(_load(builder, row))
            row = _element(builder, row, args[2])
        mixed = rows[count]
        for c in range(count):
            value = _load(
                builder, _element(builder, args[8], ir.Constant(INT, c * LANES)), ALIGNED
            )
            mixed = _multiply_add(builder, value, rows[c], mixed)
            accumulate(c, g, rows[c])
        e = builder.fmul(g, mixed, flags=CONTRACT)
        eu = builder.fmul(e, u, flags=CONTRACT)
        ey = builder.fmul(e, height, flags=CONTRACT)
        one = _constant(1.0)
        accumulate(count, e, one)
        accumulate(count + 1, eu, one)
        accumulate(count + 2, eu, u)
        accumulate(count + 3, ey, one)
        accumulate(count + 4, eu, height)
        accumulate(count + 5, ey, height)
        return context.get_dummy_value()

    f = types.float32
    return (
        types.void(residual, types.int64, types.int64, f, f, f, f, f, values, moments, channels),
        codegen,
    )


def _unary(name: str) -> Any:
    @intrinsic
    def operation(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(FLOAT, [FLOAT]), f"llvm.{name}.f32"
            )
            return builder.call(function, args)

        return types.float32(types.float32), codegen

    return operation


# math.sqrt, floor and ceil check errors and call the C library; these are one instruction each.
fast_sqrt = _unary("sqrt")
fast_floor = _unary("floor")
fast_ceil = _unary("ceil")


@intrinsic
def fast_exp2(typingctx: Any, x: Any) -> Any:
    """Return 2^x for -126 < x < 127, relative error 3e-7; vectorizes in plain loops."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # Not the magic number of the vectors: callers may allow reassociation, which undoes it.
        rint = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(FLOAT, [FLOAT]), "llvm.rint.f32"
        )
        whole = builder.call(rint, args)
        fraction = builder.fsub(args[0], whole)
        result: Any = ir.Constant(FLOAT, float(np.float32(EXP2[5])))
        for coefficient in EXP2[4::-1]:
            constant = ir.Constant(FLOAT, float(np.float32(coefficient)))
            result = _multiply_add(builder, result, fraction, constant)
        power = builder.shl(builder.fptosi(whole, INT), ir.Constant(INT, 23))
        return builder.bitcast(builder.add(builder.bitcast(result, INT), power), FLOAT)

    return types.float32(types.float32), codegen
