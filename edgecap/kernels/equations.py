"""Eight sets of least-squares equations, side by side in the lanes of vectors, solved by elimination.

Four rows at a time are kept in registers while all earlier ones are taken from them. Every number is what
plain elimination, one row after the other, gives to the last bit: the order in which each is computed from
others is the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.compile import part
from edgecap.kernels.lanes import LANES, Eight, load, same, store, within

F32 = NDArray[np.float32]
Two = tuple[Eight, Eight]

TERMS = 16
"""Unknowns, a multiple of four."""
ROW = TERMS + 4
"""A row of the equations: what the weights multiply, the sum with the target, and three that only pad."""
SQUARE_SIZE = TERMS * ROW * LANES
INVERSES = 4 * TERMS * LANES
SHARES_SIZE = INVERSES + TERMS * LANES
"""Length of the scratch `shares`: what four rows have of each earlier one, and from INVERSES on one part of
every diagonal."""
RIDGE, RELATIVE_RIDGE = 0.25, 1.0001220703125
WEIGHT_LIMIT = 8.0


@part
def two(array: F32, at: int) -> Two:
    """Two neighbours of a row, for eight channels each."""
    return load(array, at), load(array, at + LANES)


@part
def put_two(array: F32, at: int, pair: Two) -> None:
    """Set two neighbours of a row."""
    store(array, at, pair[0])
    store(array, at + LANES, pair[1])


@part
def less(pair: Two, share: Eight, other: Two) -> Two:
    """Two neighbours of a row, less a share of what another row has there."""
    return pair[0] - share * other[0], pair[1] - share * other[1]


@part
def raised(diagonal: Eight) -> Eight:
    """What is on the diagonal, enough larger for the equations to have a solution."""
    return diagonal * same(RELATIVE_RIDGE) + same(RIDGE)


@part
def eliminate(q: F32, a: F32, shares: F32) -> None:
    """Bring the equations `q` into triangular form `a`; see `solve`."""
    one = same(1.0)
    row = LANES * ROW
    for i in range(0, TERMS, 4):
        # First the columns with these rows' diagonals and the right side (r): the others need their shares.
        at0 = row * i + LANES * i
        at1, at2, at3 = at0 + row, at0 + 2 * row, at0 + 3 * row
        right = LANES * (TERMS - i)
        s00, s01 = raised(load(q, at0)), load(q, at0 + LANES)
        s02, s03 = two(q, at0 + 2 * LANES)
        s11, s12, s13 = raised(load(q, at1 + LANES)), load(q, at1 + 2 * LANES), load(q, at1 + 3 * LANES)
        s22, s23, s33 = (
            raised(load(q, at2 + 2 * LANES)),
            load(q, at2 + 3 * LANES),
            raised(load(q, at3 + 3 * LANES)),
        )
        r0, r1, r2, r3 = (
            load(q, at0 + right),
            load(q, at1 + right),
            load(q, at2 + right),
            load(q, at3 + right),
        )
        for k in range(i):
            at = row * k + LANES * i
            inverse = load(shares, INVERSES + LANES * k)
            x0, x1 = two(a, at)
            x2, x3 = two(a, at + 2 * LANES)
            x = load(a, at + right)
            g0, g1, g2, g3 = x0 * inverse, x1 * inverse, x2 * inverse, x3 * inverse
            put_two(shares, 4 * LANES * k, (g0, g1))
            put_two(shares, 4 * LANES * k + 2 * LANES, (g2, g3))
            s00, s01, s02, s03, r0 = s00 - g0 * x0, s01 - g0 * x1, s02 - g0 * x2, s03 - g0 * x3, r0 - g0 * x
            s11, s12, s13, r1 = s11 - g1 * x1, s12 - g1 * x2, s13 - g1 * x3, r1 - g1 * x
            s22, s23, r2 = s22 - g2 * x2, s23 - g2 * x3, r2 - g2 * x
            s33, r3 = s33 - g3 * x3, r3 - g3 * x
        inverse0 = one / s00
        g01, g02, g03 = s01 * inverse0, s02 * inverse0, s03 * inverse0
        s11, s12, s13, r1 = s11 - g01 * s01, s12 - g01 * s02, s13 - g01 * s03, r1 - g01 * r0
        inverse1 = one / s11
        g12, g13 = s12 * inverse1, s13 * inverse1
        s22, s23, r2 = s22 - g02 * s02 - g12 * s12, s23 - g02 * s03 - g12 * s13, r2 - g02 * r0 - g12 * r1
        inverse2 = one / s22
        g23 = s23 * inverse2
        s33 = s33 - g03 * s03 - g13 * s13 - g23 * s23
        r3 = r3 - g03 * r0 - g13 * r1 - g23 * r2
        put_two(shares, INVERSES + LANES * i, (inverse0, inverse1))
        put_two(shares, INVERSES + LANES * i + 2 * LANES, (inverse2, one / s33))
        # On the diagonal nothing is needed any more.
        store(a, at0 + LANES, s01)
        put_two(a, at0 + 2 * LANES, (s02, s03))
        put_two(a, at1 + 2 * LANES, (s12, s13))
        store(a, at2 + 3 * LANES, s23)
        store(a, at0 + right, r0)
        store(a, at1 + right, r1)
        store(a, at2 + right, r2)
        store(a, at3 + right, r3)
        for j in range(i + 4, TERMS, 2):
            at0 = row * i + LANES * j
            at1, at2, at3 = at0 + row, at0 + 2 * row, at0 + 3 * row
            row0, row1, row2, row3 = two(q, at0), two(q, at1), two(q, at2), two(q, at3)
            for k in range(i):
                x01 = two(a, row * k + LANES * j)
                g0, g1 = two(shares, 4 * LANES * k)
                g2, g3 = two(shares, 4 * LANES * k + 2 * LANES)
                row0, row1 = less(row0, g0, x01), less(row1, g1, x01)
                row2, row3 = less(row2, g2, x01), less(row3, g3, x01)
            row1 = less(row1, g01, row0)
            row2 = less(less(row2, g02, row0), g12, row1)
            row3 = less(less(less(row3, g03, row0), g13, row1), g23, row2)
            put_two(a, at0, row0)
            put_two(a, at1, row1)
            put_two(a, at2, row2)
            put_two(a, at3, row3)


@part
def insert(a: F32, shares: F32, w: F32) -> None:
    """Find the weights `w` from the triangular form, the last four first; see `solve`."""
    row = LANES * ROW
    for i in range(TERMS - 4, -1, -4):
        at0 = row * i + LANES * i
        at1, at2, at3 = at0 + row, at0 + 2 * row, at0 + 3 * row
        right = LANES * (TERMS - i)
        r0, r1, r2, r3 = (
            load(a, at0 + right),
            load(a, at1 + right),
            load(a, at2 + right),
            load(a, at3 + right),
        )
        for k in range(TERMS - 1 - i, 3, -1):
            at = LANES * k
            v = load(w, LANES * i + at)
            r0, r1 = r0 - load(a, at0 + at) * v, r1 - load(a, at1 + at) * v
            r2, r3 = r2 - load(a, at2 + at) * v, r3 - load(a, at3 + at) * v
        inverse0, inverse1 = two(shares, INVERSES + LANES * i)
        inverse2, inverse3 = two(shares, INVERSES + LANES * i + 2 * LANES)
        w3 = within(r3 * inverse3, WEIGHT_LIMIT)
        w2 = within((r2 - load(a, at2 + 3 * LANES) * w3) * inverse2, WEIGHT_LIMIT)
        x2, x3 = two(a, at1 + 2 * LANES)
        w1 = within((r1 - x3 * w3 - x2 * w2) * inverse1, WEIGHT_LIMIT)
        x2, x3 = two(a, at0 + 2 * LANES)
        w0 = within((r0 - x3 * w3 - x2 * w2 - load(a, at0 + LANES) * w1) * inverse0, WEIGHT_LIMIT)
        put_two(w, LANES * i, (w0, w1))
        put_two(w, LANES * i + 2 * LANES, (w2, w3))


@part
def solve(q: F32, w: F32, a: F32, shares: F32) -> None:
    """Solve the equations `q` for the weights `w`.

    Args:
        q: TERMS rows of ROW; of the square part only what is right of or on the diagonal counts.
        w: Receives TERMS weights, 0 in place of those beyond WEIGHT_LIMIT.
        a: Scratch of SQUARE_SIZE.
        shares: Scratch of SHARES_SIZE.

    Source: Gaussian elimination without pivots, which positive definite matrices do not need (Golub and
        Van Loan, Matrix Computations, § 4.1).
    """
    eliminate(q, a, shares)
    insert(a, shares, w)
