/* One automaton as the compiled step reads it, and what an instruction set must bring to compute it. */
#ifndef NCA_STEP_H
#define NCA_STEP_H

#include <stddef.h>
#include <stdint.h>

enum { NCA_LAYOUT = 5 }; /* layout.py has the same number: who changes what is below, or the order of an array, counts on */

/* Rounding of the state's 16 bits to 8: (x * multiplier / 2^15, rounded) + added, the sum / 2^shift. */
typedef struct {
  int32_t multiplier, added, shift;
} nca_rounding;

/* All arrays are laid out by layout.py, begin on 64 bytes and belong to the caller; channels and hidden are multiples of 64.
   The kernels read 64 channels of four rows woven together, in the order in which lanes of 16 bytes are unpacked: parts of 4
   lanes of 4 channels; parts 0 and 1 are half 0, parts 2 and 3 half 1. What is perceived of 64 channels is their own, and of
   each half 4 lanes of 8 channels by the first kernel and of the same 8 by the second, both parts by turns. It and what is
   hidden is unsigned on x86 and signed on ARM, as their dot products want it: `rounding`, the biases and `kernel_offsets` know
   by how much. In bytes, channels have an order of their own on x86, in which the 16 bits were narrowed, and so has what is
   hidden; all weights that meet them are laid out in it.

   What a kernel sums begins with a bias that makes it, read as a float32, 3 * 2^22 more than it is; times its scale plus its
   offset it is a float32 again whose lower 16 bits are what is perceived: one multiplication with addition instead of two
   conversions and a multiplication. */
typedef struct {
  int32_t grid, channels, hidden;
  int32_t seen, pixels;        /* of the channels: those that the caller sees, and those of them that hold the image */
  const float *inward;         /* (pixels,) that the image is multiplied by to be the state's 16 bits */
  const float *outward;        /* (seen,) that those are multiplied by to be what the caller sees */
  const int8_t *kernels;       /* (channels / 64, 2 halves, 2 kernels, 2 parts, 3 columns, 16, 4 rows), a fourth row of 0 */
  const float *kernel_scales;  /* (channels / 64, 2 halves, 2 kernels, 2 parts, 16): from sums to what is perceived */
  const float *kernel_offsets; /* (as kernel_scales) */
  const int8_t *w1, *w2;       /* (outputs / 16, inputs / 4, 16, 4): 64 inputs times 16 outputs lie in one piece */
  const nca_rounding *rounding; /* (steps,) */
  const int32_t *kernel_bias;  /* (steps, as kernel_scales) */
  const int32_t *bias1;        /* (steps, hidden) */
  const float *scale1;         /* (steps, hidden): from sums to the hidden layer */
  const int32_t *bias2;        /* (channels,), all 0 where bytes are unsigned */
  const float *scale2;         /* (steps, channels): from sums to the change */
  const int32_t *starts;       /* (steps * grid + 1,) of each row's grid cells that fire, in `columns` */
  const uint16_t *columns;
} nca_automaton;

/* Where the caller wants the state (grid, grid, seen) after the last step, and the maxima and the sums (seen,) of its channels,
   on top of what is there; NULL: not these. */
typedef struct {
  float *state, *most;
  double *sum;
} nca_answer;

typedef struct {
  int32_t signed_bytes;
  void (*begin)(void), (*end)(void);
  /* n numbers of the state, a multiple of 64, into 8 bits */
  void (*round)(const int16_t *x, size_t n, nca_rounding by, uint8_t *y);
  /* Grid cells of two rows, n[0] of rows[1] and n[1] of rows[2], from four rows (4, grid + 2, channels) in 8 bits, woven
     together once for both -> (n[0] + n[1], 3 * channels) */
  void (*perceive)(const nca_automaton *a, int32_t step, const uint8_t *const rows[4], const uint16_t *columns,
                   const int32_t n[2], uint8_t *woven, uint8_t *y);
  /* (n, 3 * channels) -> (n, hidden); both may be read and written as if n were a multiple of 32 */
  void (*hide)(const nca_automaton *a, int32_t step, const uint8_t *y, int32_t n, uint8_t *h);
  /* (n, hidden) -> added to the n grid cells at x */
  void (*change)(const nca_automaton *a, int32_t step, const uint8_t *h, int32_t n, int16_t *const *x);
} nca_kernels;

#endif
