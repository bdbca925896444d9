/* The kernels of 64-bit ARM; included once with DOT, for cores that have dot products, and once without. A weight is never
   -128, so that two products fit into 16 bits. */

TARGET static inline int32x4_t NAME(scaled)(int32x4_t sum, const float *scale) {
  return vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sum), vld1q_f32(scale)));
}

TARGET static inline int16x8_t NAME(scaled_16)(const int32x4_t *sums, const float *scale) {
  return vqmovn_high_s32(vqmovn_s32(NAME(scaled)(sums[0], scale)), NAME(scaled)(sums[1], scale + 4));
}

TARGET static void NAME(round)(const int16_t *x, size_t n, nca_rounding by, uint8_t *y) {
  const int16x8_t added = vdupq_n_s16((int16_t)by.added), shift = vdupq_n_s16((int16_t)-by.shift);
  for (size_t i = 0; i < n; i += 16) {
    int16x8_t v[2];
    for (int j = 0; j < 2; j++)
      v[j] = vshlq_s16(vqaddq_s16(vqrdmulhq_n_s16(vld1q_s16(x + i + 8 * j), (int16_t)by.multiplier), added), shift);
    vst1q_s8((int8_t *)y + i, vqmovn_high_s16(vqmovn_s16(v[0]), v[1]));
  }
}

/* 16 channels of four rows above each other: four bytes a channel. */
TARGET static inline void NAME(weave)(const uint8_t *const rows[4], size_t at, int8_t *woven) {
  int8x16_t r[4];
  for (int i = 0; i < 4; i++) r[i] = vld1q_s8((const int8_t *)rows[i] + at);
  const int16x8_t low = vreinterpretq_s16_s8(vzip1q_s8(r[0], r[1])), high = vreinterpretq_s16_s8(vzip2q_s8(r[0], r[1]));
  const int16x8_t low_below = vreinterpretq_s16_s8(vzip1q_s8(r[2], r[3]));
  const int16x8_t high_below = vreinterpretq_s16_s8(vzip2q_s8(r[2], r[3]));
  vst1q_s8(woven, vreinterpretq_s8_s16(vzip1q_s16(low, low_below)));
  vst1q_s8(woven + 16, vreinterpretq_s8_s16(vzip2q_s16(low, low_below)));
  vst1q_s8(woven + 32, vreinterpretq_s8_s16(vzip1q_s16(high, high_below)));
  vst1q_s8(woven + 48, vreinterpretq_s8_s16(vzip2q_s16(high, high_below)));
}

/* Three columns of four taps, of four channels. */
TARGET static inline int32x4_t NAME(convolved)(int32x4_t sum, int8x16_t a, int8x16_t b, int8x16_t c, const int8x16_t taps[3]) {
  const int8x16_t ta = taps[0], tb = taps[1], tc = taps[2];
#ifdef DOT
  return vdotq_s32(vdotq_s32(vdotq_s32(sum, a, ta), b, tb), c, tc);
#else
  const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(ta)), vget_low_s8(b), vget_low_s8(tb));
  const int16x8_t high = vmlal_high_s8(vmull_high_s8(a, ta), b, tb);
  const int32x4_t first = vpadalq_s16(vpaddlq_s16(low), vmull_s8(vget_low_s8(c), vget_low_s8(tc)));
  return vaddq_s32(sum, vpaddq_s32(first, vpadalq_s16(vpaddlq_s16(high), vmull_high_s8(c, tc))));
#endif
}

/* What n grid cells perceive by both kernels in a half of 16 channels. Those of the lower row read the woven rows from the
   second on. */
TARGET static void NAME(convolve)(const nca_automaton *a, int32_t step, size_t group, int half, int lower,
                                  const uint16_t *columns, int32_t n, const int8_t *woven, int8_t *y) {
  const size_t c = a->channels, lane = group & 63, first = 2 * (group - lane) + 64 * half;
  const int8_t *taps = a->kernels + 12 * first + lane;
  const int32_t *biases = a->kernel_bias + (size_t)step * 2 * c + first + lane / 4;
  const float *scales = a->kernel_scales + first + lane / 4, *offsets = a->kernel_offsets + first + lane / 4;
  const int32x4_t shift = vdupq_n_s32(8 * lower);
  int8x16_t t[12];
  int32x4_t bias[4];
  float32x4_t scale[4], offset[4];
  for (int j = 0; j < 12; j++) t[j] = vreinterpretq_s8_s32(vshlq_s32(vreinterpretq_s32_s8(vld1q_s8(taps + 64 * j)), shift));
  for (int j = 0; j < 4; j++)
    bias[j] = vld1q_s32(biases + 16 * j), scale[j] = vld1q_f32(scales + 16 * j), offset[j] = vld1q_f32(offsets + 16 * j);
  for (int32_t i = 0; i < n; i++, y += 3 * c) {
    const int8_t *near = woven + 64 * columns[i] + 32 * half;
    int8x16_t x[3][2];
    int16x8_t v[4];
    for (int j = 0; j < 6; j++) x[j / 2][j % 2] = vld1q_s8(near + 64 * (j / 2) + 16 * (j % 2));
    for (int j = 0; j < 4; j++) {
      const int32x4_t sum = NAME(convolved)(bias[j], x[0][j % 2], x[1][j % 2], x[2][j % 2], t + 3 * j);
      v[j] = vreinterpretq_s16_f32(vfmaq_f32(offset[j], vreinterpretq_f32_s32(sum), scale[j]));
    }
    /* the lower halves of the numbers of both parts, by turns */
    vst1q_s8(y + 64 + 64 * half, vqmovn_high_s16(vqmovn_s16(vtrn1q_s16(v[0], v[1])), vtrn1q_s16(v[2], v[3])));
  }
}

TARGET static void NAME(perceive)(const nca_automaton *a, int32_t step, const uint8_t *const rows[4], const uint16_t *columns,
                                  const int32_t n[2], uint8_t *woven, uint8_t *y) {
  const size_t c = a->channels;
  int8_t *w = (int8_t *)woven;
  for (size_t group = 0; group < c; group += 16) {
    for (int32_t i = 0; i < a->grid + 2; i++) NAME(weave)(rows, i * c + group, w + 64 * i);
    for (int lower = 0; lower < 2; lower++) {
      const uint16_t *own = columns + (lower ? n[0] : 0);
      int8_t *to = (int8_t *)y + (lower ? n[0] : 0) * 3 * c + 3 * (group & ~(size_t)63) + (group & 63);
      for (int32_t i = 0; i < n[lower]; i++)
        vst1q_s8(to + i * 3 * c, vld1q_s8((const int8_t *)rows[1 + lower] + (own[i] + 1) * c + group));
      for (int half = 0; half < 2; half++) NAME(convolve)(a, step, group, half, lower, own, n[lower], w, to);
    }
  }
}

/* 4 grid cells times 16 outputs. */
TARGET static inline void NAME(product)(const int8_t *x, size_t k, const int8_t *w, const int32_t *bias, int32x4_t s[4][4]) {
#ifdef DOT
  for (int r = 0; r < 4; r++)
    for (int j = 0; j < 4; j++) s[r][j] = vld1q_s32(bias + 4 * j);
  for (size_t i = 0; i < k; i += 16) {
    int8x16_t v[4];
    for (int r = 0; r < 4; r++) v[r] = vld1q_s8(x + r * k + i);
#define FOUR(lane)                                                                        \
  for (int j = 0; j < 4; j++) {                                                           \
    const int8x16_t t = vld1q_s8(w + 16 * (i + 4 * lane + j));                            \
    for (int r = 0; r < 4; r++) s[r][j] = vdotq_laneq_s32(s[r][j], t, v[r], lane);        \
  }
    FOUR(0)
    FOUR(1)
    FOUR(2)
    FOUR(3)
#undef FOUR
  }
#else
  for (int side = 0; side < 4; side += 2) { /* 8 outputs: their sums, each in two parts, fill the registers */
    int32x4_t p[4][2][2];
    for (int r = 0; r < 4; r++)
      for (int j = 0; j < 2; j++) p[r][j][0] = p[r][j][1] = vdupq_n_s32(0);
    for (size_t i = 0; i < k; i += 8) {
      const int8_t *at = w + 16 * (i + side);
      const int8x16_t t[2] = {vld1q_s8(at), vld1q_s8(at + 16)};
      const int8x16_t u[2] = {vld1q_s8(at + 64), vld1q_s8(at + 80)};
      for (int r = 0; r < 4; r++) {
        const int32x2_t eight = vreinterpret_s32_s8(vld1_s8(x + r * k + i));
        const int8x16_t a = vreinterpretq_s8_s32(vdupq_lane_s32(eight, 0)), b = vreinterpretq_s8_s32(vdupq_lane_s32(eight, 1));
        for (int j = 0; j < 2; j++) {
          const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(t[j]), vget_low_s8(a)), vget_low_s8(u[j]), vget_low_s8(b));
          p[r][j][0] = vpadalq_s16(p[r][j][0], low);
          p[r][j][1] = vpadalq_s16(p[r][j][1], vmlal_high_s8(vmull_high_s8(t[j], a), u[j], b));
        }
      }
    }
    for (int r = 0; r < 4; r++)
      for (int j = 0; j < 2; j++)
        s[r][side + j] = vaddq_s32(vld1q_s32(bias + 4 * (side + j)), vpaddq_s32(p[r][j][0], p[r][j][1]));
  }
#endif
}

TARGET static void NAME(hide)(const nca_automaton *a, int32_t step, const uint8_t *y, int32_t n, uint8_t *h) {
  const size_t k = 3 * (size_t)a->channels, outputs = a->hidden, at = (size_t)step * outputs;
  const int16x8_t least = vdupq_n_s16(-128); /* the smallest byte stands for 0, and for what is negative */
  for (int32_t i = 0; i < n; i += 4)
    for (size_t o = 0; o < outputs; o += 16) {
      int32x4_t s[4][4];
      NAME(product)((const int8_t *)y + i * k, k, a->w1 + o * k, a->bias1 + at + o, s);
      for (int r = 0; r < 4; r++) {
        const int16x8_t low = vqaddq_s16(NAME(scaled_16)(s[r], a->scale1 + at + o), least);
        const int16x8_t high = vqaddq_s16(NAME(scaled_16)(s[r] + 2, a->scale1 + at + o + 8), least);
        vst1q_s8((int8_t *)h + (i + r) * outputs + o, vqmovn_high_s16(vqmovn_s16(low), high));
      }
    }
}

TARGET static void NAME(change)(const nca_automaton *a, int32_t step, const uint8_t *h, int32_t n, int16_t *const *x) {
  const size_t k = a->hidden, outputs = a->channels, at = (size_t)step * outputs;
  for (int32_t i = 0; i < n; i += 4)
    for (size_t o = 0; o < outputs; o += 16) {
      int32x4_t s[4][4];
      NAME(product)((const int8_t *)h + i * k, k, a->w2 + o * k, a->bias2 + o, s);
      for (int r = 0; r < 4 && i + r < n; r++)
        for (int j = 0; j < 4; j += 2) {
          int16_t *to = x[i + r] + o + 4 * j;
          vst1q_s16(to, vqaddq_s16(vld1q_s16(to), NAME(scaled_16)(s[r] + j, a->scale2 + at + o + 4 * j)));
        }
    }
}
