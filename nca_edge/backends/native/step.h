/* One automaton as the compiled step reads it, and what an instruction set must bring to compute it. */
#ifndef NCA_STEP_H
#define NCA_STEP_H

#include <stddef.h>
#include <stdint.h>

/* All arrays are laid out by layout.py, begin on 64 bytes and belong to the caller; channels and hidden are multiples of 64.
   "Woven" are 64 channels in the order in which 16-byte lanes are unpacked: (4 parts, 4 lanes, 4 channels). What is perceived
   and hidden is unsigned on x86 and signed on ARM, as their dot products want it: `zero` and the biases know by how much. */
typedef struct {
  int32_t grid, channels, hidden;
  const int8_t *kernels;       /* (2, channels / 64, 3 columns, 4, 4, 4, 4 rows) woven; a fourth row of 0 */
  const float *kernel_scales;  /* (2, channels) woven: from sums to what is perceived */
  const int8_t *w1, *w2;       /* (inputs / 4, outputs, 4) */
  const float *inverse;        /* (steps,) of the scale of what is perceived */
  const int32_t *zero;         /* (steps,) what stands for 0 in it */
  const int32_t *kernel_bias;  /* (steps, 2, channels) woven */
  const int32_t *bias1;        /* (steps, hidden) */
  const float *scale1;         /* (steps, hidden): from sums to the hidden layer */
  const int32_t *bias2;        /* (channels,) */
  const float *scale2;         /* (steps, channels): from sums to the change */
  const int32_t *starts;       /* (steps * grid + 1,) of each row's grid cells that fire, in `columns` */
  const uint16_t *columns;
} nca_automaton;

typedef struct {
  int32_t signed_bytes;
  void (*begin)(void), (*end)(void);
  /* n numbers of the state, a multiple of 64, into 8 bits */
  void (*round)(const float *x, size_t n, float inverse, int32_t zero, uint8_t *y);
  /* Grid cells of two rows, n[0] of rows[1] and n[1] of rows[2], from four rows (4, grid + 2, channels) in 8 bits, woven
     together once for both -> (n[0] + n[1], 3 * channels) */
  void (*perceive)(const nca_automaton *a, int32_t step, const uint8_t *const rows[4], const uint16_t *columns,
                   const int32_t n[2], uint8_t *woven, uint8_t *y);
  /* (n, 3 * channels) -> (n, hidden); both may be read and written as if n were a multiple of 32 */
  void (*hide)(const nca_automaton *a, int32_t step, const uint8_t *y, int32_t n, uint8_t *h);
  /* (n, hidden) -> added to the n grid cells at x */
  void (*change)(const nca_automaton *a, int32_t step, const uint8_t *h, int32_t n, float *const *x);
} nca_kernels;

#endif
